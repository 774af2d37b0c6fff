// A system for tests: a seed instead of a scheduler, a simulated clock instead of time.
//
// What: nothing runs but inside `settle` and `advance`, a definition excepted, which runs inside `spawn` as always.
// The same seed gives the same trace, since the seed chooses the next ready actor and feeds `random`, and the clock starts at 0.
// Invariant: T1  Calls of settle and advance run one after the other, in the order they were made.

import type { Clock } from './clock.ts';
import { ActorError } from './errors.ts';
import { SeededLoop } from './seeded-loop.ts';
import { seededRandom } from './seeded-random.ts';
import { SimulatedClock } from './simulated-clock.ts';
import { type ActorSystem, System, type SystemOptions } from './system.ts';

/** A system whose time and order a test decides. */
export interface TestSystem {
  readonly system: ActorSystem;
  /** At 0 in the beginning. */
  readonly clock: Clock;
  /** Runs until no mail can be delivered and no promise job is left. Moves no time. */
  settle(): Promise<void>;
  /** In milliseconds: settles, then goes to each instant a timer is due at, up to now + ms, fires and settles there, and ends at now + ms. */
  advance(ms: number): Promise<void>;
}

/** Steps between two looks at the promise jobs: an actor that polls for one must not run for ever before it. */
const STEPS = 128;

// Taken when this module is loaded: a test may replace the global ones.
const macrotask = globalThis.setImmediate;

/**
 * A system for tests: nothing runs but inside `settle` and `advance`, and the same seed gives the same order.
 *
 * @param options `seed`: a finite number, 0 by default; it chooses who runs next and feeds `random`. Else those of `createSystem`.
 * @throws ERR_OPTIONS_INVALID
 * @example
 * const seen: string[] = [];
 * const alarm = defineActor<string>((ctx) => {
 *   ctx.after(1_000, 'ring');
 *   return { receive: (message) => void seen.push(message) };
 * });
 * const t = testSystem({ seed: 1 });
 * t.system.spawn(alarm);
 * await t.advance(999);
 * assert.deepEqual(seen, []);
 * await t.advance(1);
 * assert.deepEqual(seen, ['ring']);
 */
export function testSystem(options: { seed?: number } & SystemOptions = {}): TestSystem {
  const { seed = 0 } = options;
  if (typeof seed !== 'number' || !Number.isFinite(seed))
    throw new ActorError('ERR_OPTIONS_INVALID', `testSystem: seed must be a finite number, got ${String(seed)}.`);
  const loop = new SeededLoop(seededRandom(seed, 1));
  const simulated = new SimulatedClock();
  const clock = options.clock ?? simulated;
  const system = new System(options, loop, clock, options.random ?? seededRandom(seed, 2));
  let last: Promise<void> = Promise.resolve();

  const inTurn = (run: () => Promise<void>): Promise<void> => {
    const done = last.then(run);
    last = done.catch(() => {}); // the caller has the rejection; the next call must run all the same
    return done;
  };

  return {
    system,
    clock,
    settle: () => inTurn(() => settle(loop)),
    advance: (ms) => {
      if (typeof ms !== 'number' || !(ms >= 0) || ms === Number.POSITIVE_INFINITY) {
        return Promise.reject(new ActorError('ERR_OPTIONS_INVALID', `advance(${String(ms)}): give milliseconds from 0.`));
      }
      return inTurn(() => advance(loop, simulated, ms));
    },
  };
}

async function settle(loop: SeededLoop): Promise<void> {
  do {
    for (let steps = 0; steps < STEPS && loop.step(); steps++);
    // Promise jobs run before a macrotask does.
    await new Promise<void>((resolve) => macrotask(resolve));
  } while (!loop.idle);
}

async function advance(loop: SeededLoop, clock: SimulatedClock, ms: number): Promise<void> {
  await settle(loop);
  const target = clock.now() + ms;
  for (let at = clock.next(); at !== undefined && at <= target; at = clock.next()) {
    clock.set(Math.max(at, clock.now()));
    clock.fire();
    await settle(loop);
  }
  clock.set(target);
}
