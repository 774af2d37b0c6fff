import { job, type RunOptions, type Sink } from 'millrace';
import { describe, expect, it } from 'vitest';
import { definitionOf } from '../../src/api/job.ts';
import { type CheckpointMetadata, filesNamed, unpackMetadata } from '../../src/checkpoint/metadata.ts';
import { JobRun } from '../../src/execution/job-run.ts';
import type { CheckpointOptions } from '../../src/graph/job.ts';
import { scriptedSource } from '../../src/testing/scripted-source.ts';
import { CHECKPOINTS, replaceStep, SimulatedHost } from '../../src/testing/simulated-host.ts';

const RECORDS = 60;
/** Simulated: what the outside takes to answer. */
const ANSWER_MS = 1000;
const nowhere: Sink<number> = { open: async () => ({ write() {}, async flush() {}, async close() {} }) };

/** A source that is much faster than what is asked for each record, of which nearly all have one key. */
class HeldUp {
  readonly host = new SimulatedHost({ seed: 7 });
  readonly run: JobRun;
  readonly failed: number[] = [];
  asked = 0;
  counted = 0;

  constructor(checkpoints: Omit<CheckpointOptions, 'directory'> = {}, options: RunOptions = {}) {
    const { host } = this;
    const program = job('held-up', (env) => {
      env
        .fromArray<number>('in', [])
        .map((n) => n)
        .keyBy((n) => (n % 20 === 0 ? 'rare' : 'often'))
        .reduce('largest', (left, right) => {
          this.counted += 1;
          return Math.max(left, right);
        })
        .keyBy((n) => n % 3)
        .asyncMap('ask', async (n) => this.#answer(n), { capacity: 1 })
        .sink('out', nowhere);
    });
    const definition = definitionOf(program);
    const script = Array.from({ length: RECORDS }, (_, value) => ({ value }));
    const build = () => {
      const nodes = definition.build();
      for (const node of nodes) {
        if (node.step.kind !== 'source') continue;
        const pause = (signal: AbortSignal): Promise<void> => host.pause(1, signal);
        replaceStep(node, { ...node.step, source: scriptedSource({ uid: 'in', script, reached: new Set(), pause }) });
      }
      return nodes;
    };
    this.run = new JobRun(
      host.definition('held-up', build),
      {
        parallelism: 2,
        checkpoints: { directory: CHECKPOINTS, every: 3_600_000, ...checkpoints },
        onEvent: (event) => {
          if (event.type === 'checkpoint-failed') this.failed.push(event.id);
        },
        ...options,
      },
      host.internals(),
    );
  }

  async #answer(n: number): Promise<number> {
    this.asked += 1;
    await this.host.pause(ANSWER_MS);
    return n;
  }

  /** Runs until nothing goes on but for answers. */
  async begin(): Promise<this> {
    await this.host.play(this.run.start());
    await this.host.advance(100);
    return this;
  }

  async metadata(path: string): Promise<CheckpointMetadata> {
    return unpackMetadata(Buffer.from(await this.host.io.fs.readFile(path)), path);
  }

  async files(): Promise<string[]> {
    return this.host.io.fs.readdir(`${CHECKPOINTS}/held-up/files`);
  }
}

function inFlight({ tasks }: CheckpointMetadata): number {
  return tasks.reduce((sum, task) => sum + (task.inFlight?.lanes ?? []).reduce((n, lane) => n + lane.records, 0), 0);
}
const settled = (promise: Promise<unknown>): { over: boolean } => {
  const state = { over: false };
  const end = (): void => {
    state.over = true;
  };
  promise.then(end, end);
  return state;
};

describe('protocols 16: a checkpoint of a job that is held up', () => {
  it('aligned, waits until all that stands in front of its barrier is through: for seconds', async () => {
    const held = await new HeldUp().begin();
    const { asked } = held;
    const begun = held.host.now;
    const checkpoint = await held.host.play(held.run.checkpoint());
    expect(held.host.now - begun).toBeGreaterThan(5 * ANSWER_MS);
    expect(held.asked - asked).toBeGreaterThan(5);
    expect(inFlight(await held.metadata(checkpoint.path))).toBe(0);
    await held.host.play(held.run.cancel());
  });

  it('unaligned, is complete before the next record is, and has those that wait', async () => {
    const held = await new HeldUp({ unaligned: true }).begin();
    const { asked, counted } = held;
    const begun = held.host.now;
    const checkpoint = await held.host.until(held.run.checkpoint());
    expect([held.host.now - begun, held.asked - asked, held.counted - counted]).toEqual([0, 0, 0]);
    const metadata = await held.metadata(checkpoint.path);
    expect(inFlight(metadata)).toBeGreaterThan(5);
    // Both behind the source and behind the aggregate.
    expect(metadata.tasks.filter((task) => task.inFlight !== undefined).map((task) => task.vertex)).toEqual(expect.arrayContaining(['ask', 'largest']));
    await held.host.play(held.run.cancel());
  });

  it('aligned with a timeout, waits so long from its trigger, and then for nothing', async () => {
    const held = await new HeldUp({ unaligned: { after: 2500 } }).begin();
    const taking = settled(held.run.checkpoint());
    await held.host.advance(2499);
    expect(taking.over).toBe(false);
    await held.host.advance(1);
    await held.host.settle();
    expect(taking.over).toBe(true);
    await held.host.play(held.run.cancel());
  });

  it('aligned with a timeout, has nothing in flight where the barrier is faster', async () => {
    const held = await new HeldUp({ unaligned: { after: 1_000_000 } }).begin();
    const checkpoint = await held.host.play(held.run.checkpoint());
    expect(inFlight(await held.metadata(checkpoint.path))).toBe(0);
    await held.host.play(held.run.cancel());
  });

  it('is aligned where it is the last of a stop', async () => {
    const held = await new HeldUp({ unaligned: true }).begin();
    const { checkpoint } = await held.host.play(held.run.stop());
    const metadata = await held.metadata(checkpoint!.path);
    expect(metadata.tasks.map((task) => task.inFlight)).toEqual(metadata.tasks.map(() => undefined));
    expect(held.asked).toBeGreaterThan(5);
  });

  it('is aligned where it is a savepoint', async () => {
    const held = await new HeldUp({ unaligned: true }).begin();
    const { asked } = held;
    const savepoint = await held.host.play(held.run.savepoint('/savepoint'));
    expect(held.asked - asked).toBeGreaterThan(5);
    expect(inFlight(await held.metadata(`${savepoint.path}/metadata`))).toBe(0);
    await held.host.play(held.run.cancel());
  });

  it('leaves no file of what was in flight where it came to nothing, and the next one does not wait for it', async () => {
    const held = await new HeldUp({ unaligned: true, timeout: 5000, tolerate: 10 }).begin();
    let late: (() => void) | undefined;
    let reached = 0;
    held.host.faults = {
      step: (name) =>
        name === 'checkpoint.ack' && reached++ === 3
          ? new Promise((resolve) => {
              late = resolve;
            })
          : undefined,
      loses: () => false,
    };
    const expired = settled(held.run.checkpoint());
    await held.host.advance(5001);
    expect([expired.over, held.failed]).toEqual([true, [1]]);
    expect((await held.files()).filter((name) => name.startsWith('inflight-')).length).toBeGreaterThan(0);
    late!();
    await held.host.settle();
    const checkpoint = await held.host.until(held.run.checkpoint());
    await held.host.settle();
    const named = filesNamed(await held.metadata(checkpoint.path)).map(({ name }) => name);
    expect((await held.files()).filter((name) => name.startsWith('inflight-') && !named.includes(name))).toEqual([]);
    await held.host.play(held.run.cancel());
  });

  it('is refused with mode at-least-once, and where `after` is no time', () => {
    expect(() => new HeldUp({ unaligned: true, mode: 'at-least-once' })).toThrow(expect.objectContaining({ code: 'OPTION_INVALID' }));
    expect(() => new HeldUp({ unaligned: { after: Number.NaN } })).toThrow(expect.objectContaining({ code: 'OPTION_INVALID' }));
    expect(() => new HeldUp({ unaligned: { after: -1 } })).toThrow(expect.objectContaining({ code: 'OPTION_INVALID' }));
  });
});

describe('a checkpoint with records in flight, in a program that was changed', () => {
  it('is refused where the exchange that they were on is gone, and drops them where that is accepted', async () => {
    const held = await new HeldUp({ unaligned: true }).begin();
    const checkpoint = await held.host.until(held.run.checkpoint());
    await held.host.play(held.run.cancel());
    const metadata = await held.metadata(checkpoint.path);
    const program = job('held-up', (env) => {
      env
        .fromArray<number>('in', [])
        .keyBy((n) => n)
        .reduce('largest', Math.max)
        .asyncMap('ask', async (n) => n)
        .sink('out', nowhere);
    });
    const start = async (allowNonRestoredState: boolean): Promise<JobRun> => {
      const host = new SimulatedHost({ seed: 1, after: held.host });
      const run = new JobRun(
        host.definition('held-up', () => definitionOf(program).build()),
        { parallelism: 2, checkpoints: { directory: CHECKPOINTS }, restore: { from: checkpoint.id, allowNonRestoredState } },
        host.internals(),
      );
      await host.play(run.start());
      await host.play(run.finished);
      return run;
    };
    expect(inFlight(metadata)).toBeGreaterThan(0);
    await expect(start(false)).rejects.toMatchObject({ code: 'RESTORE_STATE_UNCLAIMED', message: expect.stringContaining("'ask'") });
    expect((await start(true)).status).toBe('finished');
  });
});
