// A run that is handed over to another leader, as that leader's job sees it: the next start goes on behind the last checkpoint.

import { type Job, job } from 'millrace';
import { describe, expect, it } from 'vitest';
import { MillraceError } from '../../src/errors.ts';
import type { JobRun } from '../../src/execution/job-run.ts';
import { systemIo } from '../../src/runtime/io.ts';
import { checkpointsIn, ends, Feed, jobOnIo, RESTARTS, rejection, Store, startWithFaults, temporaryFolder, Watch } from '../protocols/lab.ts';

const cause = new MillraceError('LEADER_DEPOSED', 'Another leads.');

/** How often each number was read, summed up by whether it is even. */
class Handed {
  readonly feed = new Feed<number>({ bounded: false });
  readonly store = new Store<{ readonly key: string; readonly n: number }>();
  readonly watch = new Watch();
  readonly folder: string;

  constructor(folder: string) {
    this.folder = folder;
  }

  job(make = job): Job {
    return make('handed', (env) => {
      env
        .source('in', this.feed)
        .map((v) => ({ key: v % 2 === 0 ? 'even' : 'odd', n: 1 }))
        .keyBy(({ key }) => key)
        .reduce('count', (left, right) => ({ key: left.key, n: left.n + right.n }))
        .sink('out', this.store);
    });
  }
  async start(make?: typeof job, faults?: string): Promise<JobRun> {
    const options = { checkpoints: checkpointsIn(this.folder, { tolerate: 5 }), restarts: RESTARTS, onEvent: this.watch.onEvent };
    const running = faults === undefined ? await this.job(make).start(options) : await startWithFaults(this.job(make), faults, options);
    return ends(running) as unknown as JobRun;
  }
  async feeds(count: number): Promise<void> {
    this.feed.push(Array.from({ length: count }, (_, i) => i));
    await this.feed.taken();
  }
  /** Whether every count of both keys up to that was committed once. */
  get counts(): readonly string[] {
    return this.store.records.map(({ key, n }) => `${key} ${n}`).toSorted();
  }
}

const upTo = (n: number): string[] => ['even', 'odd'].flatMap((key) => Array.from({ length: n }, (_, i) => `${key} ${i + 1}`)).toSorted();

describe('a run that is handed over', () => {
  it('ends behind a last checkpoint that is committed, with nothing to repeat; its outcome is another one to tell', async () => {
    const handed = new Handed(await temporaryFolder());
    const run = await handed.start();
    await handed.feeds(6);
    const finished = rejection(run.finished);
    expect(await run.handOver(cause)).toBe(true);
    expect(await finished).toBe(cause);
    expect(handed.counts).toEqual(upTo(3));
    const reads = handed.feed.reads.length;
    const next = await handed.start();
    await handed.feeds(2);
    expect(handed.feed.reads.slice(reads)).toMatchObject([{ from: 1 }]);
    await next.stop();
    expect(handed.counts).toEqual(upTo(4));
  });

  it('goes on elsewhere without a last checkpoint where there can be none, from the newest there is', async () => {
    const handed = new Handed(await temporaryFolder());
    const run = await handed.start(job, 'checkpoint.metadata.write=fail@2');
    await handed.feeds(2);
    await run.checkpoint();
    await handed.feeds(2);
    expect(await run.handOver(cause)).toBe(true);
    expect(handed.counts).toEqual(upTo(1));
    const next = await handed.start();
    await handed.feed.taken();
    await next.stop();
    expect(handed.counts).toEqual(upTo(2));
  });

  it('stays where it may and there can be no last checkpoint, and goes on; later it may go', async () => {
    const handed = new Handed(await temporaryFolder());
    const run = await handed.start(job, 'checkpoint.metadata.write=fail@1');
    await handed.feeds(2);
    expect(await run.handOver(cause, true)).toBe(false);
    await handed.watch.restarted();
    await handed.feeds(2);
    expect([run.status, run.rescaling]).toEqual(['running', false]);
    expect(await run.handOver(cause, true)).toBe(true);
    expect(run.ending).toBe(true);
    expect(handed.counts).toEqual(upTo(2));
  });

  it('waits for its last checkpoint no longer than those wait who ask a process to end', async () => {
    const handed = new Handed(await temporaryFolder());
    const io = systemIo();
    let late: (() => void) | undefined;
    const clock = {
      ...{ now: () => io.clock.now(), clearTimeout: (id: unknown) => io.clock.clearTimeout(id) },
      setTimeout: (fn: () => void, ms: number): unknown => {
        if (ms !== 20_000) return io.clock.setTimeout(fn, ms);
        late = fn;
        return undefined;
      },
    };
    const run = await handed.start(jobOnIo({ ...io, clock }));
    await handed.feeds(2);
    let go!: () => void;
    const committing = new Promise<void>((reached) => {
      handed.store.before = () => {
        reached();
        return new Promise<void>((resolve) => {
          go = resolve;
        });
      };
    });
    const handing = run.handOver(cause);
    await committing;
    late!();
    // A commit that runs is awaited.
    go();
    expect(await handing).toBe(true);
    handed.store.before = () => {};
    const next = await handed.start();
    await handed.feeds(2);
    await next.stop();
    expect(handed.counts).toEqual(upTo(2));
  });

  it('twice at once, whoever may stay, is handed over once; one that must go waits for one that has stayed', async () => {
    const handed = new Handed(await temporaryFolder());
    const run = await handed.start();
    await handed.feeds(2);
    expect(await Promise.all([run.handOver(cause), run.handOver(cause), run.handOver(cause, true)])).toEqual([true, true, true]);
    expect(handed.watch.of('checkpoint')).toHaveLength(1);
    const again = await handed.start(job, 'checkpoint.metadata.write=fail@1');
    await handed.feeds(2);
    expect(await Promise.all([again.handOver(cause, true), again.handOver(cause)])).toEqual([false, true]);
    const last = await handed.start();
    await handed.feed.taken();
    await last.stop();
    expect(handed.counts).toEqual(upTo(2));
  });

  it('in the middle of a rescale stays, where it may', async () => {
    const handed = new Handed(await temporaryFolder());
    const run = await handed.start();
    await handed.feeds(2);
    const rescaling = run.rescale(2);
    expect(await run.handOver(cause, true)).toBe(false);
    await rescaling;
    await handed.feeds(2);
    expect(await run.handOver(cause, true)).toBe(true);
    expect(handed.counts).toEqual(upTo(2));
  });
});
