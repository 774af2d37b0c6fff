import { job, type Sink } from 'millrace';
import { describe, expect, it } from 'vitest';
import { readMetadata } from '../../src/checkpoint/metadata.ts';
import type { DeadLetter } from '../../src/graph/job.ts';
import type { SinkContext } from '../../src/graph/sink.ts';
import { deadLetter, withLetters } from '../../src/runtime/dead-letters.ts';
import { forEachSink } from '../../src/runtime/for-each.ts';
import { systemIo } from '../../src/runtime/io.ts';
import { PlainSink } from '../../src/runtime/plain-sink.ts';
import { directory } from '../../src/storage/directory.ts';
import { Conditions, checkpointsIn, ends, Feed, RESTARTS, temporaryFolder, Watch } from '../protocols/lab.ts';

const letterOf = (record: unknown, error: unknown): DeadLetter => deadLetter('each', record, undefined, Number.NaN, error, 0, undefined);
const recordsOf = (letters: readonly DeadLetter[] | undefined): unknown[] => (letters ?? []).map((letter) => letter.record);

/** A `forEach` whose letters go to its sink, as in a task. */
async function eachSink(fn: (value: unknown) => void | Promise<void>): Promise<PlainSink> {
  const sink: PlainSink = new PlainSink(
    forEachSink(fn, (error, record, _, index) => sink.refused(index, letterOf(record, error))),
    0,
    {
      uid: 'each',
      lineage: 'lineage',
      context: () => ({}) as SinkContext,
      io: systemIo(),
      wake: () => {},
      failed: (error) => {
        throw error;
      },
    },
  );
  await sink.open();
  return sink;
}

describe('a letter of forEach goes with the barrier that its record stands in front of', () => {
  for (const later of [false, true]) {
    it(`${later ? 'a promise' : 'a call'} that fails behind the barrier`, async () => {
      const conditions = new Conditions();
      let held = true;
      // The first call is held, so that all others are made behind both barriers, each in one batch with records of another interval.
      const sink = await eachSink(async (v) => {
        if (v === 0) await conditions.until(() => !held);
        if (!later || v === 0) return;
        throw new Error(`${v}`);
      });
      const calls = await eachSink((v) => {
        if (v === 0) return conditions.until(() => !held);
        throw new Error(`${v}`);
      });
      const of = later ? sink : calls;
      of.add(0, Number.NaN);
      of.drain();
      for (const v of [1, 2]) of.add(v, Number.NaN);
      const first = of.barrier()();
      for (const v of [3, 4]) of.add(v, Number.NaN);
      const second = of.barrier()();
      of.add(5, Number.NaN);
      held = false;
      conditions.changed();
      expect(recordsOf((await first).letters)).toEqual([1, 2]);
      expect(recordsOf((await second).letters)).toEqual([1, 2, 3, 4]);
      // What has been written is known to the task at the next barrier.
      expect(recordsOf((await of.barrier()()).letters)).toEqual([]);
    });
  }

  it('the newest 1,000 are kept, and the others counted', () => {
    const letters = (from: number, to: number): DeadLetter[] => Array.from({ length: to - from }, (_, i) => letterOf(from + i, new Error('no')));
    const merged = withLetters({ deadLetters: letters(0, 999), deadLettersDropped: 7 }, letters(999, 1003));
    expect(recordsOf(merged.deadLetters)).toEqual(Array.from({ length: 1000 }, (_, i) => i + 3));
    expect(merged.deadLettersDropped).toBe(10);
    const [one] = letters(0, 1);
    expect(withLetters({}, [one!])).toEqual({ deadLetters: [one], deadLettersDropped: 0 });
  });

  it('a restore keeps it, though its record is not read again', async () => {
    const folder = await temporaryFolder();
    const conditions = new Conditions();
    const feed = new Feed<number>({ bounded: false });
    const watch = new Watch();
    let held = true;
    let crash = false;
    let flushes = 0;
    const flush = async (): Promise<void> => {
      flushes += 1;
      conditions.changed();
    };
    // Flushed when the barrier has passed, in front of the other.
    const probe: Sink<number> = { open: async () => ({ write: () => {}, flush, close: async () => {} }) };
    const running = ends(
      await job('each', (env) => {
        const read = env.source('in', feed).map((v) => {
          if (crash) throw new Error('crash');
          return v;
        });
        read.sink('probe', probe);
        read
          .forEach('each', async (v) => {
            await conditions.until(() => !held);
            if (v % 2 === 0) throw new Error(`${v}`);
          })
          .onError('skip');
      }).start({ checkpoints: checkpointsIn(folder), restarts: RESTARTS, onEvent: watch.onEvent }),
    );
    const kept = async (path: string): Promise<unknown[]> =>
      (await readMetadata(directory('.'), path)).tasks.flatMap((task) => recordsOf(task.operators['each']?.deadLetters));
    await feed.push([1, 2, 3]).taken();
    const taking = running.checkpoint();
    await conditions.until(() => flushes === 1);
    held = false;
    conditions.changed();
    expect(await kept((await taking).path)).toEqual([2]);
    crash = true;
    feed.push([4]);
    await watch.until(() => watch.of('restart').length > 0);
    crash = false;
    await feed.taken();
    expect(await kept((await running.checkpoint()).path)).toEqual([2, 4]);
    expect(watch.of('dead-letter').map((e) => e.deadLetter.record)).toEqual([2, 4]);
    await running.cancel();
  });
});
