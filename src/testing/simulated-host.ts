// A host on which a job runs under a seed: the engine as it is, on an actor system that decides its order by the seed, a clock that a test moves, and a disk in
// memory.
//
// Who owns what: the host owns the system, the clock, the disk and what the run waits for; whoever drives it decides when time passes. Nothing here starts a
// timer of the machine.
//
// Invariants:
//  V1  Nothing of the engine runs but inside of `settle`, `until` and `advance`.
//  V2  With state in memory and without user code that waits for the machine, the same seed gives the same order of everything.

import { testSystem } from '../../actors/testing.ts';
import { memory, type StateBackend } from '../../state-backends/index.ts';
import type { Internals, JobDefinition } from '../execution/job-run.ts';
import type { Node, Step } from '../graph/node.ts';
import { operatorOf } from '../operators/operator-of.ts';
import { queryableOf } from '../operators/state-views.ts';
import { isThenable } from '../runtime/handlers.ts';
import type { Io } from '../runtime/io.ts';
import type { OperatorFactory } from '../runtime/operator.ts';
import { guarded, guardedOperators } from './guards.ts';
import { MemoryDisk, MemoryStore } from './memory-disk.ts';
import { seeded } from './seeded.ts';
import { WatchedState } from './watched-state.ts';

/** What a fault plan answers at the steps of a run. */
export interface Faults {
  /** As `Io.step`. */
  step(name: string): Promise<void> | undefined;
  /** True: this notice to a task gets lost. */
  loses(): boolean;
}

export interface HostOptions {
  readonly seed: number;
  readonly state?: StateBackend | undefined;
  /** Finds the disk that this one has left, as the next process on a machine does. */
  readonly after?: SimulatedHost | undefined;
}

/** Where the checkpoints of a run lie on its disk. */
export const CHECKPOINTS = '/checkpoints';

export class SimulatedHost {
  readonly disk: MemoryDisk;
  readonly state: WatchedState;
  readonly random: () => number;
  readonly io: Io;
  /** Set by a run with faults, once it has started. */
  faults: Faults | undefined;
  /** Calls of user code that have given a promise which is open. */
  #calls = 0;
  readonly #test: ReturnType<typeof testSystem>;
  readonly #store: MemoryStore;

  constructor({ seed, state = memory(), after }: HostOptions) {
    this.disk = after?.disk ?? new MemoryDisk();
    this.#store = after === undefined ? new MemoryStore() : after.#store;
    this.#test = testSystem({ seed, name: 'host', onFailure: () => {} });
    this.state = new WatchedState(state);
    this.random = seeded(seed);
    this.io = {
      fs: this.disk.fs,
      openStore: async () => this.#store,
      clock: this.#test.clock,
      elapsed: () => this.now,
      random: seeded(seed + 1),
      step: (name) => this.faults?.step(name),
    };
  }

  get now(): number {
    return this.#test.clock.now();
  }

  /** Calls of user code are open that only the world outside can answer. */
  get waitsForCalls(): boolean {
    return this.#calls > 0;
  }

  /** A program that runs here: its nodes guarded, its calls to the outside counted. */
  definition(name: string, build: () => readonly Node[]): JobDefinition {
    return {
      name,
      build: () => {
        const nodes = guarded(build());
        for (const node of nodes) this.#count(node);
        return [...nodes];
      },
    };
  }

  internals(operators: (node: Node) => OperatorFactory = operatorOf): Internals {
    return {
      io: this.io,
      operators: guardedOperators(operators),
      queryable: queryableOf,
      watermarkEachBatch: true,
      createSystem: () => this.#test.system,
      loses: () => this.faults?.loses() ?? false,
    };
  }

  #count(node: Node): void {
    const { step } = node;
    if (step.kind === 'asyncMap') replaceStep(node, { ...step, fn: (value: unknown, signal: AbortSignal) => this.#counted(step.fn(value, signal)) });
    if (step.kind === 'forEach') replaceStep(node, { ...step, fn: (value: unknown) => this.#counted(step.fn(value)) });
  }

  #counted<R>(answer: R): R {
    if (!isThenable(answer)) return answer;
    this.#calls += 1;
    const answered = (): void => {
      this.#calls -= 1;
    };
    answer.then(answered, answered);
    return answer;
  }

  /** Runs until nothing can go on but with time, or by somebody outside. */
  async settle(): Promise<void> {
    do await this.#test.settle();
    while (this.state.open > 0);
  }

  /** Settles again and again: for what the machine, and not the clock, will bring. */
  async until<R>(promise: Promise<R>): Promise<R> {
    let over = false;
    const end = (): void => {
      over = true;
    };
    promise.then(end, end);
    while (!over) await this.settle();
    return promise;
  }

  /** Moves the clock; timers fire at their instants, and what comes of one is over before the next fires. */
  async advance(ms: number): Promise<void> {
    await this.settle();
    const target = this.now + ms;
    for (let next = this.#nextTimer; next !== undefined && next <= target; next = this.#nextTimer) {
      await this.#test.advance(Math.max(0, next - this.now));
      await this.settle();
    }
    await this.#test.advance(target - this.now);
    await this.settle();
  }

  /** As `until`, and whenever nothing else can happen time goes to the next timer. */
  async play<R>(promise: Promise<R>): Promise<R> {
    let over = false;
    const end = (): void => {
      over = true;
    };
    promise.then(end, end);
    for (let waited = 0; !over; ) {
      await this.settle();
      if (over) break;
      // Time stands still for a while for answers from outside: else it would be over before they come.
      if (this.waitsForCalls && waited++ % PATIENCE !== PATIENCE - 1) continue;
      const next = this.#nextTimer;
      if (next !== undefined && next !== Number.POSITIVE_INFINITY) await this.#test.advance(Math.max(0, next - this.now));
    }
    return promise;
  }

  /** Resolves when so many simulated milliseconds have passed, or at once when `signal` aborts. */
  pause(ms: number, signal?: AbortSignal): Promise<void> {
    const { clock } = this.io;
    return new Promise((resolve) => {
      if (signal?.aborted === true) return resolve();
      const done = (): void => {
        clock.clearTimeout(handle);
        signal?.removeEventListener('abort', done);
        resolve();
      };
      const handle = clock.setTimeout(done, ms);
      signal?.addEventListener('abort', done);
    });
  }

  get #nextTimer(): number | undefined {
    // The clock of a test system knows its next timer; its type is that of any clock.
    return (this.#test.clock as { next?(): number | undefined }).next?.();
  }
}

/** Of a node that was just built for a run here. */
export function replaceStep(node: Node, step: Step): void {
  (node as { step: Step }).step = step;
}

/** Passes of the event loop that an answer from outside is waited for before time goes on. */
const PATIENCE = 200;
