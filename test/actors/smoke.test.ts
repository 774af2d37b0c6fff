import { expect, test } from 'vitest';
import { createMachine } from 'xstate';
import { type ActorRef, childOf, countChildren, createSystem, defineActor, fromMachine, startChild, supervisor, whichChildren } from '../../actors/index.ts';
import { testSystem } from '../../actors/testing.ts';

type Count = { type: 'add'; n: number } | { type: 'get'; replyTo: ActorRef<number> } | { type: 'tick' };
const counter = defineActor<Count>(() => {
  let n = 0;
  return {
    async receive(message) {
      if (message.type === 'add') {
        n += message.n;
        if (n > 100) throw new RangeError('too many');
      }
      if (message.type === 'get') message.replyTo.tell(n);
    },
  };
});

test('a tree of supervisors answers, restarts and stops', async () => {
  const inner = supervisor({
    strategy: 'rest-for-one',
    intensity: { max: 3, within: 5000 },
    children: [{ id: 'counter', start: counter, restart: 'transient' }],
  });
  const light = fromMachine(createMachine({ initial: 'off', states: { off: { on: { flip: 'on' } }, on: { on: { flip: 'off' } } } }));
  const root = supervisor({
    strategy: 'one-for-one',
    children: [
      { id: 'inner', start: inner },
      { id: 'light', start: light },
    ],
  });
  const failures: unknown[] = [];
  const system = createSystem({ name: 'demo', onFailure: (ref, error, phase) => failures.push([ref.path, (error as Error).message, phase]) });
  const top = system.spawn(root, { name: 'root' });
  const middle = await childOf(top, 'inner', inner);
  const ref = await childOf(middle, 'counter', counter);
  ref.tell({ type: 'add', n: 2 });
  expect(await ref.ask<number>((replyTo) => ({ type: 'get', replyTo }))).toBe(2);
  ref.tell({ type: 'add', n: 200 });
  ref.tell({ type: 'add', n: 5 });
  expect(await ref.ask<number>((replyTo) => ({ type: 'get', replyTo }))).toBe(5);
  expect(failures).toEqual([['/root/inner/counter', 'too many', 'receive']]);
  const extra = await startChild(top, { id: 'extra', start: counter, restart: 'temporary' });
  extra.tell({ type: 'add', n: 1 });
  expect((await whichChildren(top)).map((c) => [c.id, c.state])).toEqual([
    ['inner', 'running'],
    ['light', 'running'],
    ['extra', 'running'],
  ]);
  (await childOf(top, 'light', light)).tell({ type: 'flip' });
  expect(await countChildren(top)).toEqual({ specs: 3, active: 3, supervisors: 1, workers: 2 });
  console.log(JSON.stringify(system.tree()));
  await system.stop();
  expect(system.tree().children).toEqual([]);
});

test('simulated', async () => {
  const t = testSystem({ seed: 1 });
  const seen: number[] = [];
  t.system.spawn(
    defineActor<number>((ctx) => {
      ctx.after(1000, 1);
      return {
        receive(n) {
          seen.push(n, t.clock.now());
        },
      };
    }),
  );
  await t.settle();
  expect(seen).toEqual([]);
  await t.advance(1500);
  expect(seen).toEqual([1, 1000]);
  const p = t.system.stop();
  await t.settle();
  await p;
});
