// The conformance suite of sources: what the engine counts on, tried at any source, under any test runner.
//
// What: a list of cases, each a sentence and a function that rejects where the source is found wanting. The first call the source as a reader does; the last run it in
// jobs on the real engine, which crash, are stopped, and go on at another parallelism.
//
// Invariant: every case opens a trial of its own, and closes it.

import assert from 'node:assert/strict';
import { decode, encode } from '../../state-backends/index.ts';
import type { Source, SourceBatch } from '../graph/source.ts';
import { CommittedSinks } from './committed-sinks.ts';
import { keyOf, readContextOf, sameRecords, sourceContextOf, Turning, within, withJobs } from './connector-trials.ts';
import type { ConformanceCase } from './storage-conformance.ts';

/** A source, and what it is to give. */
export interface SourceTrial<T> {
  /** Called for each attempt: nothing but what is stored outside may be shared by two of them. */
  readonly source: () => Source<T>;
  /** Everything that is there to be read, of all splits, in any order: at least ten records, plain data. */
  readonly expected: readonly T[];
  /** How many undecodable records there are among them; 0 by default. */
  readonly letters?: number;
  /** Of an unbounded source: brings more, and tells what. */
  readonly add?: () => Promise<readonly T[]> | readonly T[];
  readonly close?: () => Promise<void> | void;
}

/** What the suite may ask of a source. */
export interface SourceConformanceOptions {
  /** False: what was read does not come again. Those cases are left out; true by default. */
  readonly replays?: boolean;
  /** Milliseconds after which a wait is taken for one without end; 10,000 by default. */
  readonly patience?: number;
}

interface Read<T> {
  readonly split: unknown;
  readonly batches: SourceBatch<T, unknown>[];
}

/**
 * What every source must do, as cases for any test runner.
 * @param open - Gives a source and what it is to give; called by each case.
 * @param options - What the source does not claim to do.
 * @returns Cases, none of which depends on another.
 * @example
 * const numbers = Array.from({ length: 20 }, (_, n) => n);
 * const source: Source<number, string, number> = {
 *   bounded: true,
 *   splits: async () => ['all'],
 *   splitId: (split) => split,
 *   async *read(_split, from = 0) {
 *     for (let n = from; n < 20; n += 5) yield { values: numbers.slice(n, n + 5), position: n + 5 };
 *   },
 * };
 * for (const { name, run } of sourceConformance(() => ({ source: () => source as Source<number>, expected: numbers }))) if (name.includes('position')) await run();
 */
export function sourceConformance<T>(open: () => Promise<SourceTrial<T>> | SourceTrial<T>, options: SourceConformanceOptions = {}): ConformanceCase[] {
  const { replays = true, patience = 10_000 } = options;
  const cases: ConformanceCase[] = [];
  const it = (name: string, work: (trial: SourceTrial<T>) => Promise<void>): void => {
    cases.push({
      name,
      run: async () => {
        const trial = await open();
        try {
          await work(trial);
        } finally {
          await trial.close?.();
        }
      },
    });
  };
  const readAll = (trial: SourceTrial<T>, letters: unknown[] = []): Promise<Map<string, Read<T>>> => reading(trial, trial.source(), patience, letters);

  it('names its splits: each with a name of its own, the same each time', async (trial) => {
    const first = await readAll(trial);
    for (const name of first.keys()) assert.ok(typeof name === 'string' && name !== '', 'the id of a split is a text that is not empty');
    if (!replays) return;
    const second = await readAll(trial);
    assert.deepEqual([...second.keys()].sort(), [...first.keys()].sort());
  });

  it('gives splits that are plain data', async (trial) => {
    const source = trial.source();
    for (const [id, { split }] of await readAll(trial)) assert.equal(source.splitId(decode(encode(split))), id);
  });

  it('gives every record once, and tells what does not decode', async (trial) => {
    const letters: unknown[] = [];
    const read = await readAll(trial, letters);
    sameRecords(valuesOf(read), trial.expected, 'read');
    assert.equal(letters.length, trial.letters ?? 0, 'dead letters');
  });

  it('gives a timestamp with each record, or none at all', async (trial) => {
    for (const { batches } of (await readAll(trial)).values()) {
      for (const { values, timestamps } of batches) {
        if (timestamps === undefined) continue;
        assert.equal(timestamps.length, values.length);
        assert.ok(timestamps.every((timestamp) => typeof timestamp === 'number'));
      }
    }
  });

  it('does not change a batch that it has handed over', async (trial) => {
    const source = trial.source();
    const held: { readonly batch: SourceBatch<T, unknown>; readonly was: string }[] = [];
    await reading(trial, source, patience, [], (batch) => void held.push({ batch, was: keyOf(batch.values) }));
    for (const { batch, was } of held) assert.equal(keyOf(batch.values), was);
  });

  it('waits where nobody takes its records, and then gives the rest', async (trial) => {
    let batches = 0;
    const slow = async (): Promise<void> => {
      batches += 1;
      if (batches <= 3) for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve));
    };
    sameRecords(valuesOf(await reading(trial, trial.source(), patience, [], slow)), trial.expected, 'read slowly');
  });

  it('ends every wait when the attempt ends', async (trial) => {
    const source = trial.source();
    const attempt = new AbortController();
    const found = await splitsOf(source, attempt.signal);
    const open: Promise<unknown>[] = [];
    for (const split of found.first) {
      const iterator = source.read(split, undefined, readContextOf(attempt.signal))[Symbol.asyncIterator]();
      await within(patience, 'the first batch of a split', Promise.race([iterator.next(), turns(50)]));
      // One that has not settled, or the next: both are waits.
      open.push(settled(iterator.next()), settled(found.rest()));
    }
    attempt.abort();
    await within(patience, 'a wait of the source after the end of its attempt', Promise.all(open));
  });

  it('can be left in the middle, and read anew by another attempt', async (trial) => {
    const source = trial.source();
    const attempt = new AbortController();
    const { first } = await splitsOf(source, attempt.signal);
    for (const split of first) {
      const iterator = source.read(split, undefined, readContextOf(attempt.signal))[Symbol.asyncIterator]();
      const begun = settled(iterator.next());
      await Promise.race([begun, turns(50)]);
      const left = settled(Promise.resolve(iterator.return?.()));
      attempt.abort();
      await within(patience, 'the end of a read that is left', Promise.all([begun, left]));
      break;
    }
    attempt.abort();
    if (replays) sameRecords(valuesOf(await readAll(trial)), trial.expected, 'read by the next attempt');
  });

  it('gives what is added while it runs, where more can come', async (trial) => {
    const source = trial.source();
    assert.equal(source.bounded, trial.add === undefined, 'an unbounded source has `add`, a bounded one has not');
    if (trial.add === undefined) return;
    const attempt = new AbortController();
    const seen: T[] = [];
    const turning = new Turning();
    const reading = readers(source, attempt.signal, [], (_, batch) => {
      seen.push(...batch.values);
      turning.changed();
    });
    await within(patience, 'what is there', Promise.race([reading, turning.until(() => seen.length >= trial.expected.length)]));
    const added = await trial.add();
    await within(patience, 'what was added', Promise.race([reading, turning.until(() => seen.length >= trial.expected.length + added.length)]));
    attempt.abort();
    await within(patience, 'the end of the attempt', settled(reading));
    sameRecords(seen, [...trial.expected, ...added], 'read');
  });

  if (!replays) return cases;

  it('gives positions that are plain data, behind which the rest comes, in the same order, and nothing else', async (trial) => {
    for (const { split, batches } of (await readAll(trial)).values()) {
      const values = batches.flatMap((batch) => batch.values);
      let behind = 0;
      const every = Math.max(1, Math.floor(batches.length / 8));
      for (const [i, { values: given, position }] of batches.entries()) {
        behind += given.length;
        if (i % every !== 0 && i !== batches.length - 1) continue;
        const rest = values.slice(behind);
        const again = await readSplit(trial.source(), split, decode(encode(position)), rest.length, patience);
        assert.deepEqual(again.map(keyOf), rest.map(keyOf), `behind position ${JSON.stringify(position)}`);
      }
    }
  });

  it('in a job that crashes, is stopped, and goes on at another parallelism, gives every record once to a sink that commits', async (trial) => {
    const sinks = new CommittedSinks();
    const committed = (): readonly unknown[] => sinks.values['out'] ?? [];
    const gate = new Gate();
    const count = trial.expected.length;
    let crashed = false;
    let seen = 0;
    await withJobs(async (start) => {
      const run = (parallelism: number): ReturnType<typeof start> =>
        start(
          (env) => {
            const mapped = env.source('in', gate.before(trial.source())).map((value) => {
              seen += 1;
              gate.turning.changed();
              if (crashed || seen < count / 2) return value;
              crashed = true;
              gate.close(1);
              throw new Error('a crash of the trial');
            });
            mapped.sink('out', sinks.sink('out') as never);
          },
          { parallelism },
        );
      gate.close(1);
      const first = await run(2);
      await within(
        patience,
        'a first batch',
        gate.turning.until(() => seen > 0),
      );
      await first.run.checkpoint().catch(() => {
        // It has crashed within the first batch.
      });
      gate.open();
      await within(patience, 'the crash in the middle', first.restarted(1));
      await within(patience, 'stopping', settled(first.run.stop()));
      gate.open();
      const second = await run(3);
      const expected = [...trial.expected, ...((await trial.add?.()) ?? [])];
      if (trial.source().bounded) {
        await within(patience, 'the end of the job', second.finished);
      } else {
        const all = async (): Promise<void> => {
          while (committed().length < expected.length) await second.run.checkpoint();
        };
        await within(patience, 'every record', all());
        await second.run.stop();
      }
      sameRecords(committed(), expected, 'committed');
    });
  });

  return cases;
}

/** Lets batches of a source through one by one, or all. */
class Gate {
  readonly turning = new Turning();
  #batches = 0;

  open(): void {
    this.#batches = Number.POSITIVE_INFINITY;
    this.turning.changed();
  }

  /** But for so many batches. */
  close(batches: number): void {
    this.#batches = batches;
  }

  before<T>(source: Source<T>): Source<T> {
    const { turning } = this;
    const take = (): boolean => {
      if (this.#batches <= 0) return false;
      this.#batches -= 1;
      return true;
    };
    return {
      bounded: source.bounded,
      splits: (context) => source.splits(context),
      splitId: (split) => source.splitId(split),
      async *read(split, from, context) {
        const wake = (): void => turning.changed();
        context.signal.addEventListener('abort', wake);
        for await (const batch of source.read(split, from, context)) {
          await turning.until(() => context.signal.aborted || take());
          if (context.signal.aborted) return;
          yield batch;
        }
      },
      ...(source.onCheckpointComplete === undefined
        ? {}
        : { onCheckpointComplete: (positions: Map<string, unknown>) => source.onCheckpointComplete!(positions) }),
    };
  }
}

function valuesOf<T>(read: ReadonlyMap<string, Read<T>>): T[] {
  return [...read.values()].flatMap(({ batches }) => batches.flatMap(({ values }) => values));
}

/** Everything that is there: until every split has ended, or, of an unbounded source, until all that is expected was read. */
async function reading<T>(
  trial: SourceTrial<T>,
  source: Source<T>,
  patience: number,
  letters: unknown[],
  onBatch: (batch: SourceBatch<T, unknown>) => void | Promise<void> = () => {},
): Promise<Map<string, Read<T>>> {
  const attempt = new AbortController();
  const read = new Map<string, Read<T>>();
  let total = 0;
  const { expected, letters: bad = 0 } = trial;
  const turning = new Turning();
  const all = readers(source, attempt.signal, letters, async (split, batch) => {
    const id = source.splitId(split);
    if (!read.has(id)) read.set(id, { split, batches: [] });
    read.get(id)!.batches.push(batch);
    total += batch.values.length;
    turning.changed();
    await onBatch(batch);
  });
  const enough = turning.until(() => !source.bounded && total >= expected.length && letters.length >= bad);
  try {
    await within(patience, `record ${total + 1} of ${expected.length}`, source.bounded ? all : Promise.race([all, enough]));
  } finally {
    attempt.abort();
    await within(patience, 'the end of the attempt', settled(all));
  }
  return read;
}

/** Reads all splits side by side, as they are found; resolves when all have ended. */
async function readers<T>(
  source: Source<T>,
  signal: AbortSignal,
  letters: unknown[],
  onBatch: (split: unknown, batch: SourceBatch<T, unknown>) => void | Promise<void>,
): Promise<void> {
  const seen = new Set<string>();
  const open: Promise<void>[] = [];
  const readOne = async (split: unknown): Promise<void> => {
    for await (const batch of source.read(split, undefined, readContextOf(signal, letters))) await onBatch(split, batch);
  };
  const begin = (splits: readonly unknown[]): void => {
    for (const split of splits) {
      const id = source.splitId(split);
      if (seen.has(id)) continue;
      seen.add(id);
      const reading = readOne(split);
      // It is awaited at the end.
      reading.catch(() => {});
      open.push(reading);
    }
  };
  const found = source.splits(sourceContextOf(signal));
  if (Symbol.asyncIterator in found) for await (const splits of found) begin(splits);
  else begin(await found);
  await Promise.all(open);
}

/** The first `count` records behind a position; where there are to be none, those that come at once. */
async function readSplit<T>(source: Source<T>, split: unknown, from: unknown, count: number, patience: number): Promise<T[]> {
  const attempt = new AbortController();
  const values: T[] = [];
  const read = async (): Promise<void> => {
    for await (const batch of source.read(split, from, readContextOf(attempt.signal))) {
      values.push(...batch.values);
      if (!source.bounded && values.length >= count) return;
    }
  };
  const all = read();
  try {
    await within(patience, `record ${values.length + 1} of ${count} behind a position`, source.bounded || count > 0 ? all : Promise.race([all, turns(50)]));
  } finally {
    attempt.abort();
    await within(patience, 'the end of the attempt', settled(all));
  }
  return values;
}

/** The splits that are there at once, and what waits for more. */
async function splitsOf<T>(source: Source<T>, signal: AbortSignal): Promise<{ readonly first: readonly unknown[]; readonly rest: () => Promise<unknown> }> {
  const found = source.splits(sourceContextOf(signal));
  if (!(Symbol.asyncIterator in found)) return { first: await found, rest: async () => {} };
  const iterator = found[Symbol.asyncIterator]();
  const { value, done } = await iterator.next();
  return { first: done === true ? [] : value, rest: async () => iterator.next() };
}

async function settled(promise: Promise<unknown>): Promise<void> {
  await promise.catch(() => {
    // That it has ended is what counts.
  });
}

async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}
