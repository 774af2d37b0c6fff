// The conformance suite of sinks: what the engine counts on, tried at any sink, plain or transactional, under any test runner.
//
// What: a list of cases, each a sentence and a function that rejects where the sink is found wanting. The first call the sink as its task does; the last runs it in jobs
// on the real engine, which crash, are stopped, and go on at another parallelism.
//
// Invariant: every case opens a trial of its own, and closes it.

import assert from 'node:assert/strict';
import { decode, encode } from '../../state-backends/index.ts';
import { isTransactional, type Sink, type SinkContext, type TransactionalSink, type TransactionalWriter } from '../graph/sink.ts';
import { keyOf, LetThrough, sameRecords, sinkContextOf, Turning, within, withJobs } from './connector-trials.ts';
import type { ConformanceCase } from './storage-conformance.ts';

/** A sink, what is to be written, and how to see what was. */
export interface SinkTrial<T> {
  /** Called for each attempt: nothing but what is stored outside may be shared by two of them. */
  readonly sink: () => Sink<T> | TransactionalSink<T>;
  /** At least twelve records, no two alike, plain data. */
  readonly values: readonly T[];
  /** What a reader sees by now, as it was given, in any order. */
  readonly written: () => Promise<readonly T[]> | readonly T[];
  readonly close?: () => Promise<void> | void;
}

/** What the suite may ask of a sink. */
export interface SinkConformanceOptions {
  /** Milliseconds after which a wait is taken for one without end; 10,000 by default. */
  readonly patience?: number;
}

/**
 * What every sink must do, as cases for any test runner: those of a transactional sink where it says that it is one, else those of a plain sink.
 * @param kind - Which of the two it is.
 * @param open - Gives a sink and what to write; called by each case.
 * @returns Cases, none of which depends on another.
 * @example
 * const values = Array.from({ length: 12 }, (_, n) => n);
 * const open = () => {
 *   const into: number[] = [];
 *   return { sink: () => collect(into), values, written: () => into };
 * };
 * for (const { name, run } of sinkConformance('plain', open)) if (name.includes('flush')) await run();
 */
export function sinkConformance<T>(
  kind: 'plain' | 'transactional',
  open: () => Promise<SinkTrial<T>> | SinkTrial<T>,
  options: SinkConformanceOptions = {},
): ConformanceCase[] {
  const { patience = 10_000 } = options;
  const cases: ConformanceCase[] = [];
  const it = (name: string, work: (trial: SinkTrial<T>) => Promise<void>): void => {
    cases.push({
      name,
      run: async () => {
        const trial = await open();
        try {
          assert.equal(isTransactional(trial.sink()), kind === 'transactional', `it is to be ${kind}`);
          assert.equal(new Set(trial.values.map(keyOf)).size, trial.values.length, 'no two values may be alike');
          assert.ok(trial.values.length >= 12, 'there are to be twelve values at least');
          await within(6 * patience, 'the end of the case', work(trial));
        } finally {
          await trial.close?.();
        }
      },
    });
  };
  if (kind === 'plain') plainCases(it, patience);
  else transactionalCases(it, patience);

  it('in jobs that crash, are stopped, and go on at another parallelism, has every record, and each once where it is transactional', async (trial) => {
    const { values } = trial;
    const input = new LetThrough(values.length);
    const turning = new Turning();
    let seen = 0;
    let crash = false;
    await withJobs(async (start) => {
      const run = (parallelism: number): ReturnType<typeof start> =>
        start(
          (env) => {
            const mapped = env.source('in', input.source).map((n) => {
              if (crash) {
                crash = false;
                throw new Error('a crash of the trial');
              }
              seen += 1;
              turning.changed();
              return values[n]!;
            });
            mapped.sink('out', trial.sink() as Sink<T>);
          },
          { parallelism },
        );
      const third = Math.floor(values.length / 3);
      input.allow(third);
      const first = await run(2);
      await within(
        patience,
        'the first records',
        turning.until(() => seen >= third),
      );
      await first.run.checkpoint();
      crash = true;
      input.allow(2 * third);
      await within(patience, 'the restart behind a crash', first.restarted(1));
      await within(patience, 'a checkpoint behind the restart', first.run.checkpoint());
      await within(patience, 'stopping', first.run.stop());
      input.allow(values.length);
      const second = await run(3);
      await within(patience, 'the end of the job', second.finished);
    });
    const written = await trial.written();
    if (kind === 'transactional') return sameRecords(written, values, 'written');
    const keys = new Set(written.map(keyOf));
    const missing = values.filter((value) => !keys.has(keyOf(value)));
    assert.deepEqual(missing, [], 'records are missing');
  });

  return cases;
}

type Case<T> = (name: string, work: (trial: SinkTrial<T>) => Promise<void>) => void;

function plainCases<T>(it: Case<T>, patience: number): void {
  const opened = (trial: SinkTrial<T>, context: Partial<SinkContext> = {}) => (trial.sink() as Sink<T>).open(sinkContextOf(context));
  const NONE = [Number.NaN];

  it('has written what was given when a flush has resolved', async (trial) => {
    const writer = await opened(trial);
    const half = trial.values.length / 2;
    await writer.write(
      trial.values.slice(0, half),
      trial.values.slice(0, half).map(() => 5),
    );
    await writer.flush();
    sameRecords(await trial.written(), trial.values.slice(0, half), 'flushed');
    for (const value of trial.values.slice(half)) await writer.write([value], NONE);
    await writer.flush();
    sameRecords(await trial.written(), trial.values, 'flushed');
    await writer.close();
  });

  it('does nothing for no records, and may be flushed without any', async (trial) => {
    const writer = await opened(trial);
    await writer.flush();
    await writer.write([], []);
    await writer.flush();
    await writer.flush();
    sameRecords(await trial.written(), [], 'written');
    await writer.close();
  });

  it('writes what several instances are given', async (trial) => {
    const writers = await Promise.all(['0', '1', '2'].map((writer) => opened(trial, { writer })));
    await Promise.all(trial.values.map(async (value, i) => i < 3 && writers[i]!.write([value], NONE)));
    await Promise.all(writers.map((writer) => writer.flush()));
    sameRecords(await trial.written(), trial.values.slice(0, 3), 'flushed');
    await Promise.all(writers.map((writer) => writer.close()));
  });

  it('is closed also where nothing was written, and where the attempt has ended', async (trial) => {
    await (await opened(trial)).close();
    const attempt = new AbortController();
    const writer = await opened(trial, { signal: attempt.signal });
    await writer.write(trial.values.slice(0, 1), NONE);
    attempt.abort();
    await within(patience, 'a flush after the end of the attempt', settled(writer.flush()));
    await within(patience, 'closing after the end of the attempt', writer.close());
  });
}

function transactionalCases<T>(it: Case<T>, patience: number): void {
  type Writer = TransactionalWriter<T, unknown>;
  const opened = async (trial: SinkTrial<T>, context: Partial<SinkContext> = {}): Promise<Writer> =>
    within(patience, 'opening', (trial.sink() as TransactionalSink<T>).open(sinkContextOf(context)));
  /** As the runtime hands them over: encoded when they come, and once through a snapshot. */
  const commit = (writer: Writer, id: number, ...values: T[]): Promise<void> =>
    writer.commit(
      id,
      values.map((value) => decode(encode(encoded(writer, value)))),
    );

  it('knows of no commit when it is opened for the first time, and of its last one afterwards', async (trial) => {
    const writer = await opened(trial);
    assert.equal(await writer.lastCommitted(), 0);
    await commit(writer, 3, trial.values[0]!);
    assert.equal(await writer.lastCommitted(), 3);
    await commit(writer, 7, trial.values[1]!);
    await writer.close();
    const next = await opened(trial, { attempt: 2, restored: plain(writer.snapshot?.()) });
    assert.equal(await next.lastCommitted(), 7);
    await next.close();
  });

  it('shows what is committed, and nothing before', async (trial) => {
    const writer = await opened(trial);
    const [a, b, ...rest] = trial.values as [T, T, ...T[]];
    for (const value of trial.values) encoded(writer, value);
    sameRecords(await trial.written(), [], 'before a commit');
    await commit(writer, 1, a, b);
    sameRecords(await trial.written(), [a, b], 'committed');
    await commit(writer, 2, ...rest);
    await writer.finish?.();
    sameRecords(await trial.written(), trial.values, 'committed');
    await writer.close();
  });

  it('encodes records as plain data, which a snapshot can keep', async (trial) => {
    const writer = await opened(trial);
    for (const value of trial.values) {
      const record = encoded(writer, value);
      assert.equal(keyOf(decode(encode(record))), keyOf(record));
    }
    assert.equal(keyOf(plain(writer.snapshot?.())), keyOf(writer.snapshot?.()));
    await writer.close();
  });

  it('goes on in the next attempt, behind what the one before had committed', async (trial) => {
    const first = await opened(trial);
    await commit(first, 1, trial.values[0]!);
    const restored = plain(first.snapshot?.());
    await commit(first, 2, trial.values[1]!);
    // It is not closed: it was killed.
    const second = await opened(trial, { attempt: 2, restored });
    assert.equal(await second.lastCommitted(), 2);
    await commit(second, 3, trial.values[2]!);
    await second.finish?.();
    sameRecords(await trial.written(), trial.values.slice(0, 3), 'committed');
    await second.close();
  });

  it('lets an attempt that was overtaken commit nothing', async (trial) => {
    const zombie = await opened(trial);
    await commit(zombie, 1, trial.values[0]!);
    const records = [encoded(zombie, trial.values[1]!)];
    const next = await opened(trial, { attempt: 2, restored: plain(zombie.snapshot?.()) });
    assert.equal(await next.lastCommitted(), 1);
    await assert.rejects(within(patience, 'a commit of the overtaken attempt', zombie.commit(2, records)));
    assert.equal(await next.lastCommitted(), 1);
    sameRecords(await trial.written(), [trial.values[0]], 'committed');
    await commit(next, 2, trial.values[2]!);
    await next.finish?.();
    sameRecords(await trial.written(), [trial.values[0], trial.values[2]], 'committed');
    await settled(zombie.close());
    await next.close();
  });

  it('lets one of two attempts commit a checkpoint, whichever was opened later', async (trial) => {
    const newer = await opened(trial, { attempt: 2 });
    let older: Writer | undefined;
    try {
      older = await opened(trial, { attempt: 1 });
    } catch {
      // It was refused at once.
    }
    const outcomes = [
      older === undefined ? { status: 'rejected' as const } : await outcome(commit(older, 5, trial.values[0]!)),
      await outcome(commit(newer, 5, trial.values[1]!)),
    ];
    assert.equal(outcomes.filter(({ status }) => status === 'fulfilled').length, 1, 'one commits');
    sameRecords(await trial.written(), [outcomes[0]!.status === 'fulfilled' ? trial.values[0] : trial.values[1]], 'committed');
    await settled(older?.close());
    await settled(newer.close());
  });

  it('commits nothing of records that cannot be read to their end', async (trial) => {
    const writer = await opened(trial);
    const broken = function* (): Iterable<unknown> {
      yield encoded(writer, trial.values[0]!);
      yield encoded(writer, trial.values[1]!);
      throw new Error('the segment is gone');
    };
    await assert.rejects(writer.commit(1, broken()));
    await settled(writer.close());
    const next = await opened(trial, { attempt: 2 });
    assert.equal(await next.lastCommitted(), 0);
    sameRecords(await trial.written(), [], 'committed');
    await commit(next, 1, trial.values[0]!, trial.values[1]!);
    await next.finish?.();
    sameRecords(await trial.written(), trial.values.slice(0, 2), 'committed');
    await next.close();
  });

  it('never writes a checkpoint twice, whatever it says of an id that has passed', async (trial) => {
    const writer = await opened(trial);
    await commit(writer, 4, trial.values[0]!);
    await settled(commit(writer, 4, trial.values[0]!));
    await settled(writer.close());
    const next = await opened(trial, { attempt: 2, restored: plain(writer.snapshot?.()) });
    assert.equal(await next.lastCommitted(), 4);
    await next.finish?.();
    sameRecords(await trial.written(), [trial.values[0]], 'committed');
    await next.close();
  });

  it('keeps writers, sinks and lineages apart', async (trial) => {
    const identities: Partial<SinkContext>[] = [{}, { writer: '1' }, { uid: 'other' }, { lineage: 'another' }];
    for (const [i, identity] of identities.entries()) {
      const writer = await opened(trial, identity);
      assert.equal(await writer.lastCommitted(), 0, `of ${JSON.stringify(identity)}`);
      await commit(writer, 10 - i, trial.values[i]!);
      await writer.finish?.();
      await writer.close();
    }
    sameRecords(await trial.written(), trial.values.slice(0, identities.length), 'committed');
    for (const [i, identity] of identities.entries()) {
      // A lineage of its own is a fork: it may have fenced the one before, whose marker stands all the same.
      const again = await opened(trial, { ...identity, attempt: 2 });
      assert.equal(await again.lastCommitted(), 10 - i);
      await again.close();
    }
  });

  it('commits many records at once', async (trial) => {
    const writer = await opened(trial);
    const many = Array.from({ length: Math.ceil(7000 / trial.values.length) }, () => trial.values).flat();
    await writer.commit(
      1,
      many.map((value) => encoded(writer, value)),
    );
    await writer.finish?.();
    sameRecords(await trial.written(), many, 'committed');
    await writer.close();
  });

  it('is finished more than once, and closed where nothing was committed', async (trial) => {
    const writer = await opened(trial);
    await writer.finish?.();
    await commit(writer, 1, trial.values[0]!);
    await writer.finish?.();
    await writer.finish?.();
    await writer.close();
    await (await opened(trial, { writer: '1' })).close();
    sameRecords(await trial.written(), [trial.values[0]], 'committed');
  });

  function encoded(writer: Writer, value: T): unknown {
    return writer.encode === undefined ? value : writer.encode(value, 5);
  }
}

function plain<V>(value: V): V {
  return decode(encode(value)) as V;
}

async function settled(promise: Promise<unknown> | undefined): Promise<void> {
  await promise?.catch(() => {
    // That it has ended is what counts.
  });
}

async function outcome(promise: Promise<unknown>): Promise<{ readonly status: 'fulfilled' | 'rejected' }> {
  const [settledTo] = await Promise.allSettled([promise]);
  return { status: settledTo!.status };
}
