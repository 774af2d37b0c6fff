// A job as it is led, without a cluster around it: what befalls a leader between two steps of a start.

import { job, type RunOptions } from 'millrace';
import { describe, expect, it } from 'vitest';
import { definitionOf } from '../../src/api/job.ts';
import { LedJob, type LedJobOptions } from '../../src/cluster/led-job.ts';
import { deposed } from '../../src/cluster/zookeeper/election.ts';
import { lost } from '../../src/cluster/zookeeper/errors.ts';
import type { JobEnd, JobStore, WantedJob } from '../../src/cluster/zookeeper/job-store.ts';
import { MillraceError } from '../../src/errors.ts';
import { SILENT } from '../../src/graph/context.ts';
import { operatorOf } from '../../src/operators/operator-of.ts';
import { systemIo } from '../../src/runtime/io.ts';
import { Conditions, Feed, RESTARTS, rejection } from '../protocols/lab.ts';

/** Without checkpoints: what is kept of it is what the store of the test is told. */
class Led {
  readonly ends: JobEnd[] = [];
  /** Of losses. */
  readonly rows: object[] = [];
  readonly conditions = new Conditions();
  readonly #ended = new AbortController();
  readonly job: LedJob;
  built = 0;

  constructor(options: {
    readonly planned?: () => Promise<boolean>;
    readonly build?: () => void;
    readonly wanted?: Partial<WantedJob>;
    readonly run?: RunOptions;
  }) {
    const { planned = async () => true, build = () => {}, wanted = {}, run = {} } = options;
    const definition = definitionOf(job('led', (env) => void env.source('in', new Feed({ bounded: false })).forEach('out', () => {})));
    const term = { epoch: 1, isLeader: () => !this.#ended.signal.aborted, ended: this.#ended.signal };
    const lost = async (...[, , , row]: Parameters<JobStore['lost']>) => this.rows.push(row) > 0;
    const store = { planned, lost, ended: async (_: unknown, end: JobEnd) => void this.ends.push(end) };
    this.job = new LedJob({
      client: {},
      term,
      store,
      wanted: { name: 'led', options: {}, until: { kind: 'end' }, ...wanted },
      offered: {
        definition: {
          name: 'led',
          build: () => {
            this.built += 1;
            this.conditions.changed();
            build();
            return definition.build();
          },
        },
        options: { checkpoints: false, ...run },
        planHash: 'p',
      },
      internals: { operators: operatorOf },
      hosts: () => undefined,
      slots: () => 1,
      self: 'this',
      workers: () => 1,
      reaches: (worker: string) => worker === 'there',
      changed: () => this.conditions.changed(),
      gaveUp: async () => false,
      answerState: async () => undefined,
      io: systemIo(),
      log: SILENT,
    } as unknown as LedJobOptions);
  }

  running(): Promise<void> {
    return this.conditions.until(() => this.job.state.status === 'running');
  }
  get statuses(): unknown[] {
    return this.ends.map((end) => ('result' in end ? end.result.status : end.failure.code));
  }
}

describe('a job that is led', () => {
  const before = { workers: ['a', 'b'], checkpoint: 0, at: Date.now() };

  it.each([
    ['gone', ['a', 'b', 'gone']],
    ['a', ['a', 'b']],
    ['there', ['a', 'b']],
    ['this', ['a', 'b']],
  ])('counts who led it before as lost where that is gone, once: %s', async (by, workers) => {
    const led = new Led({ wanted: { begun: true, losses: { ...before, by } } });
    await led.running();
    expect(led.rows).toEqual([{ by: 'this', workers, checkpoint: 0, at: expect.any(Number) }]);
    led.job.until({ kind: 'cancel' });
    await led.job.over;
  });

  it('has failed where too many were lost in a row, and is not begun again', async () => {
    const led = new Led({ wanted: { begun: true, losses: { ...before, by: 'gone' } }, run: { restarts: { max: 1, within: 60_000 } } });
    await led.job.over;
    expect([led.statuses, led.rows]).toEqual([['HOST_LOST'], []]);
    expect(led.ends).toMatchObject([{ failure: { message: expect.stringMatching(/^3 workers of the job 'led' died one after the other/), retryable: false } }]);
  });

  it('is started behind what passes by itself, and does not cost the process its place', async () => {
    let tries = 0;
    const led = new Led({ planned: async () => ++tries > 1 || Promise.reject(lost('set a job', true)) });
    await led.running();
    led.job.until({ kind: 'cancel' });
    await led.job.over;
    expect([tries, led.statuses]).toEqual([2, ['cancelled']]);
  });

  it('is cancelled while a start of it fails again and again', async () => {
    const led = new Led({
      build: () => {
        throw new Error('this machine has no memory');
      },
      wanted: { begun: true },
      run: { restarts: { ...RESTARTS, backoff: { initial: 3_600_000, max: 3_600_000 } } },
    });
    await led.conditions.until(() => led.built === 1);
    led.job.until({ kind: 'cancel' });
    await led.job.over;
    expect(led.statuses).toEqual(['cancelled']);
  });

  it('is not begun any more where its leader leaves between two steps of its start', async () => {
    let go: ((done: boolean) => void) | undefined;
    const led = new Led({
      planned: () =>
        new Promise((resolve) => {
          go = resolve;
          led.conditions.changed();
        }),
    });
    await led.conditions.until(() => go !== undefined);
    const left = led.job.leave(new MillraceError('CLUSTER_LEFT', 'It leaves.'), true);
    go!(true);
    await left;
    expect([led.built, led.ends]).toEqual([0, []]);
  });

  it('says to who asks while it is left that another one is to be asked, and not that it has ended', async () => {
    const led = new Led({});
    await led.running();
    const left = led.job.leave(deposed(1), true);
    const asked = ['tree', 'metrics', 'checkpoints', 'checkpoint'].map(async (method) => (await rejection(led.job.ask(method, {}))).code);
    expect(await Promise.all(asked)).toEqual(['LEADER_UNREACHABLE', 'LEADER_UNREACHABLE', 'LEADER_UNREACHABLE', 'LEADER_UNREACHABLE']);
    await left;
    expect(led.ends).toEqual([]);
  });
});
