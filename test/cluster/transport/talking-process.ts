// A worker in a process of its own, whose main thread sends numbers over a channel for as long as there is credit, from 0 with each connection:
// `talking-process.ts <worker> <who dials>`.

import { Connections } from '../../../src/cluster/transport/connections.ts';
import { takeBatch } from '../../../src/runtime/batch.ts';

const [worker, dialer] = process.argv.slice(2) as [string, string];
const say = (line: string): void => void process.stdout.write(`${line}\n`);
const nothing = (): void => {};

const connections = new Connections({
  hello: () => ({ cluster: 'c', worker, epoch: 1, plans: [] }),
  secret: 'open sesame',
  heartbeat: 50,
  deadAfter: 5000,
  log: { debug: nothing, info: nothing, warn: nothing, error: nothing },
  connected({ channels, lost }) {
    say(`connected ${dialer}`);
    let next = 0;
    const talk = (): void => {
      while (out.channel.open) {
        const batch = takeBatch(false);
        for (let i = 0; i < 100; i++) batch.add({ n: next, text: `the number ${next++}` }, 0);
        out.channel.send(batch);
      }
    };
    const out = channels.out({
      name: 'talk',
      attempt: 1,
      from: 'talker',
      to: 'listener',
      wake: () => setImmediate(talk),
      failed: (error) => say(`failed ${error.code}`),
    });
    talk();
    void lost.then((error) => say(`lost ${error?.code}`));
  },
});
const { port } = await connections.listen();
say(`port ${port}`);
