// A thread at the other end of a link: it has an incoming channel for each outgoing one of its own, and sends back what it is given, records times two.

import { type MessagePort, workerData } from 'node:worker_threads';
import { RemoteChannels, type RemoteEnd } from '../../../src/cluster/transport/remote-channel.ts';
import { threadLink } from '../../../src/cluster/transport/thread-link.ts';
import { takeBatch } from '../../../src/runtime/batch.ts';

const { port, lanes } = workerData as { port: MessagePort; lanes: number };
const channels = new RemoteChannels(threadLink(port, { peer: 'the test' }), {
  mail: (message) => {
    if (message === 'throw') throw new Error('thrown in the thread');
    if (message === 'exit') process.exit(3);
  },
});
for (let lane = 0; lane < lanes; lane++) {
  const forward = (): void => {
    while (back.channel.open) {
      const element = into.channel.take();
      if (element === undefined) return;
      if ('kind' in element) back.channel.signal(element);
      else {
        const batch = takeBatch(element.keyed);
        for (let i = 0; i < element.size; i++)
          batch.addKeyed((element.values[i] as { n: number }).n * 2, element.timestamps[i]!, element.keys[i]!, element.hashes[i]!);
        back.channel.send(batch);
      }
    }
  };
  const into: RemoteEnd = channels.in({ name: `to ${lane}`, attempt: 1, wake: () => setImmediate(forward) });
  const back: RemoteEnd = channels.out({
    name: `back ${lane}`,
    attempt: 1,
    from: 'echo',
    to: 'test',
    wake: () => setImmediate(forward),
    failed: (error) => {
      throw error;
    },
  });
}
