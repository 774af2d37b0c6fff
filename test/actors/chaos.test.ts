// A tree of supervisors under random failures, slow ends, failing starts and requests, from seeds: whatever happens, every incarnation
// that started stops exactly once or is killed, and the system comes to its end.

import { expect, test } from 'vitest';
import {
  childOf,
  createSystem,
  defineActor,
  deleteChild,
  restartChild,
  type Supervisor,
  startChild,
  supervisor,
  terminateChild,
  whichChildren,
} from '../../actors/index.ts';
import { seededRandom } from '../../actors/seeded-random.ts';
import { testSystem } from '../../actors/testing.ts';

const SEEDS = 60;

test.each([
  ['one-for-one', undefined],
  ['one-for-all', undefined],
  ['rest-for-one', undefined],
  ['one-for-all', { initial: 5, max: 50 }],
  ['rest-for-one', { initial: 5, max: 50 }],
] as const)('%s with backoff %j survives chaos', async (strategy, backoff) => {
  for (let seed = 0; seed < SEEDS; seed++) {
    const random = seededRandom(seed, 99);
    const t = testSystem({ seed, onFailure: () => {}, logger: { debug() {}, info() {}, warn() {}, error() {} } });
    let calm = true;
    const running = new Map<string, number>();
    const count = (path: string, by: number) => running.set(path, (running.get(path) ?? 0) + by);
    const worker = defineActor<'go'>((ctx) => {
      if (!calm && random() < 0.15) throw new Error('no start');
      const { path } = ctx.self;
      count(path, 1);
      ctx.after(1 + random() * 30, 'go');
      return {
        receive() {
          const dice = random();
          if (dice < 0.2) throw new Error('failed');
          if (dice < 0.3) ctx.exit();
          if (dice < 0.35) ctx.spawn(worker, { restart: 'transient' });
          ctx.after(1 + random() * 30, 'go');
          if (dice > 0.9) return new Promise<void>((resolve) => void ctx.clock.setTimeout(resolve, random() * 20));
          return undefined;
        },
        stopping() {
          count(path, -1);
          const dice = random();
          if (dice < 0.1) throw new Error('bad stop');
          return dice < 0.6 ? new Promise<void>((resolve) => void ctx.clock.setTimeout(resolve, random() * 20)) : undefined;
        },
      };
    });
    const intensity = { max: 6, within: 100 };
    const inner = supervisor({
      strategy,
      intensity,
      ...(backoff === undefined ? {} : { backoff }),
      children: [
        { id: 'a', start: worker },
        { id: 'b', start: worker, restart: 'transient' },
        { id: 'c', start: worker, restart: 'temporary' },
        { id: 'd', start: worker },
      ],
    });
    const top = t.system.spawn(
      supervisor({
        strategy,
        intensity,
        children: [
          { id: 'x', start: inner },
          { id: 'y', start: inner, restart: 'transient' },
        ],
      }),
      { name: 'top' },
    );
    calm = false;
    const known: Supervisor[] = [top];
    for (let step = 0; step < 30; step++) {
      const sup = known[Math.floor(random() * known.length)] as Supervisor;
      const id = ['a', 'b', 'c', 'd', 'x', 'y'][Math.floor(random() * 6)] as string;
      const requests = [
        () => terminateChild(sup, id),
        () => restartChild(sup, id),
        () => deleteChild(sup, id),
        () => (id < 'x' ? startChild(sup, { id, start: worker }) : startChild(sup, { id, start: inner })),
        () => whichChildren(sup),
        () => childOf(sup, id < 'x' ? 'x' : id, inner).then((ref) => void known.push(ref)),
      ];
      // Refusals are part of the chaos; that each request is answered is what counts.
      const request = requests[Math.floor(random() * requests.length)]?.() as Promise<unknown>;
      let answered = false;
      const settled = request.then(
        () => {
          answered = true;
        },
        () => {
          answered = true;
        },
      );
      await t.advance(random() * 20);
      if (random() < 0.3) {
        await t.advance(5000);
        expect(answered).toBe(true);
      }
      void settled;
    }
    const stopped = t.system.stop();
    await t.advance(100_000);
    await stopped;
    expect(t.system.tree()).toMatchObject({ state: 'stopped', children: [] });
    expect([...running.values()].filter((left) => left !== 0)).toEqual([]);
  }
});

test('a definition that stops the system above a brutal parent ends quietly', async () => {
  const system = createSystem({ onFailure: () => {} });
  const parent = system.spawn(
    defineActor<'go'>((ctx) => ({
      receive() {
        ctx.spawn(
          defineActor<'go'>(() => {
            void system.stop();
            return { receive() {} };
          }),
        );
      },
    })),
    { shutdown: 'brutal' },
  );
  parent.tell('go');
  await new Promise((resolve) => setImmediate(resolve));
  await system.stop();
  expect(system.tree().children).toEqual([]);
});
