// What must not compile: each wrong line stands under an expectation of its error, and the compiler checks them all.

import { expect, test } from 'vitest';
import { type ActorRef, type Behaviour, childOf, createSystem, defineActor, fromMachine, type Supervising, supervisor } from '../../actors/index.ts';
import { testSystem } from '../../actors/testing.ts';

type Message = { type: 'add'; n: number } | { type: 'get'; replyTo: ActorRef<number> };
const counter = defineActor<Message>(() => ({
  receive(message) {
    if (message.type === 'get') message.replyTo.tell(1);
  },
}));

/** Compiled, never run. */
async function mustFail(): Promise<void> {
  const ref = createSystem().spawn(counter);
  // @ts-expect-error unknown message
  ref.tell({ type: 'sub', n: 1 });
  // @ts-expect-error the reply is a number
  void ref.ask<string>((replyTo) => ({ type: 'get', replyTo }));
  // @ts-expect-error no such strategy
  supervisor({ strategy: 'one-for-some', children: [] });
  // @ts-expect-error a child needs an id
  supervisor({ strategy: 'one-for-one', children: [{ start: counter }] });
  // @ts-expect-error receive is required
  defineActor<Message>(() => ({}));
  // @ts-expect-error a worker is no supervisor
  await childOf(ref, 'a', counter);
  // @ts-expect-error a ref takes no more than its actor does
  const wider: ActorRef<Message | string> = ref;
  // @ts-expect-error nor does a behaviour
  const more: Behaviour<Message | string> = counter;
  // @ts-expect-error a metric is a number or null
  defineActor<Message>(() => ({ receive() {}, inspect: () => ({ metrics: { a: 'b' } }) }));
  // @ts-expect-error an actor appears as an actor or as a supervisor
  defineActor<Message>(() => ({ receive() {} }), { kind: 'system' });
  void [wider, more, fromMachine];
}

test('a ref of more is a ref of less, and a supervisor’s ref is of Supervising', () => {
  const t = testSystem();
  const ref: ActorRef<{ type: 'add'; n: number }> = t.system.spawn(counter);
  const behaviour: Behaviour<Supervising> = supervisor({ strategy: 'one-for-one', children: [{ id: 'a', start: counter }] });
  const any: readonly ActorRef<never>[] = [ref, t.system.spawn(behaviour)];
  expect(mustFail).toBeTypeOf('function');
  expect(any.map((one) => one.path)).toEqual(['/$1', '/$2']);
});
