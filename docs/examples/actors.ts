// A supervised counter that fails, comes back, and answers: `millrace/actors` alone.

import { type ActorRef, childOf, createSystem, defineActor, supervisor } from 'millrace/actors';

type Message = { type: 'add'; n: number } | { type: 'get'; replyTo: ActorRef<number> };

// Runs at every start: a restart begins with a fresh `total`.
const counter = defineActor<Message>((ctx) => {
  let total = 0;
  return {
    receive(message) {
      if (message.type === 'get') message.replyTo.tell(total);
      else if (message.n < 0) throw new RangeError(`cannot add ${message.n}`);
      else total += message.n;
    },
    stopping: (reason) => ctx.log.info('the counter ends', reason),
  };
});

const root = supervisor({
  strategy: 'one-for-one',
  intensity: { max: 3, within: 5000 },
  children: [{ id: 'counter', start: counter }],
});

const failures: string[] = [];
const system = createSystem({ name: 'example', onFailure: (ref, error, phase) => failures.push(`${ref.path} ${phase}: ${(error as Error).message}`) });
const top = system.spawn(root, { name: 'root' });
const ref = await childOf(top, 'counter', counter);

ref.tell({ type: 'add', n: 2 });
ref.tell({ type: 'add', n: -1 }); // fails: the supervisor starts it again
ref.tell({ type: 'add', n: 40 }); // waited in the mailbox meanwhile
const total = await ref.ask<number>((replyTo) => ({ type: 'get', replyTo }));
const restarts = system.status('/root/counter')?.restarts;
await system.stop();

console.log(JSON.stringify({ total, restarts, failures }));
