// A replica of a small service: it starts one job in a cluster and says, a line of JSON each, what happens. What to do comes on standard input, a line each. Settings come by
// MILLRACE_REPLICA.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { zookeeper } from '../../src/cluster/zookeeper/index.ts';
import { files } from '../../src/connectors/index.ts';
import type { Source } from '../../src/graph/source.ts';
import { job, level, memory, type RunOptions } from '../../src/index.ts';

export interface ReplicaSettings {
  readonly connect: string;
  /** Shared by all replicas. */
  readonly folder: string;
  /** How many records, and the milliseconds between two batches of 20 of a split. */
  readonly count: number;
  readonly pause: number;
  readonly sessionTimeout?: number;
  readonly backend?: 'memory' | 'level';
  /** Milliseconds between checkpoints. */
  readonly every?: number;
  /** Whoever meets this record is killed. */
  readonly poison?: number;
  readonly options?: RunOptions;
  /** Of the operator that counts: another version of the program may call it otherwise. */
  readonly uid?: string;
  /** Where its rows go, below the folder; 'out' by default. */
  readonly output?: string;
}

export type Said =
  | { readonly kind: 'running'; readonly id: string }
  | { readonly kind: 'leads'; readonly epoch: number }
  | { readonly kind: 'status'; readonly status: string }
  | { readonly kind: 'checkpoint'; readonly id: number }
  /** A task here begins to read a split. */
  | { readonly kind: 'reads'; readonly split: string; readonly from: number | undefined }
  | { readonly kind: 'answer'; readonly value: unknown }
  | { readonly kind: 'refused'; readonly code: string | undefined; readonly message: string }
  | { readonly kind: 'ended'; readonly result?: unknown; readonly code?: string; readonly message?: string }
  | { readonly kind: 'log'; readonly level: string; readonly text: string; readonly fields: unknown };

const {
  connect,
  folder,
  count,
  pause,
  sessionTimeout = 4000,
  backend = 'memory',
  every = 20,
  poison,
  options = {},
  uid = 'counts',
  output = 'out',
} = JSON.parse(process.env.MILLRACE_REPLICA!) as ReplicaSettings;
const BATCH = 20;
/** While this is there, no record behind the first half is read: what is to happen in the middle of the job does, on a busy machine too. */
const HELD = join(folder, 'held');

function say(said: Said): void {
  process.stdout.write(`${JSON.stringify(said, (_, value: unknown) => (value instanceof Error ? value.message : value))}\n`);
}

const numbers: Source<number, string, number> = {
  bounded: true,
  splits: async () => ['a', 'b'],
  splitId: (split) => split,
  async *read(split, from, { signal }) {
    say({ kind: 'reads', split, from });
    for (let at = from ?? (split === 'a' ? 0 : 1); at < count && !signal.aborted; ) {
      const values: number[] = [];
      while (at >= count / 2 && !signal.aborted && existsSync(HELD)) await new Promise((resolve) => setTimeout(resolve, pause));
      for (; at < count && values.length < BATCH; at += 2) values.push(at);
      yield { values, position: at };
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  },
};

const counting = job('counting', (env) => {
  env
    .source('in', numbers)
    .map((v) => {
      if (v === poison) process.kill(process.pid, 'SIGKILL');
      return { key: `k${v % 7}`, n: 1 };
    })
    .keyBy((v) => v.key)
    .reduce(uid, (left, right) => {
      left.n += right.n;
      return left;
    })
    .sink('out', files.sink({ directory: join(folder, output) }));
});
export default counting;

const log =
  (level: string) =>
  (fields: object | string, text?: string): void => {
    const sentence = typeof fields === 'string' ? fields : (text ?? '');
    const epoch = /leads the cluster, in epoch (\d+)/.exec(sentence)?.[1];
    if (epoch !== undefined) say({ kind: 'leads', epoch: Number(epoch) });
    else if (level !== 'debug') say({ kind: 'log', level, text: sentence, fields: typeof fields === 'string' ? undefined : fields });
  };

const zk = zookeeper({ connect, sessionTimeout });
const leaving = new AbortController();
process.on('SIGTERM', () => leaving.abort());
try {
  const running = await counting.start({
    cluster: zk,
    worker: { slots: 1 },
    module: import.meta.url,
    state: backend === 'level' ? level({ directory: join(folder, `state-${process.pid}`) }) : memory(),
    checkpoints: { directory: join(folder, 'checkpoints'), every, retain: 3 },
    restarts: { max: 20, within: 60_000, backoff: { initial: 10, max: 100 } },
    ...options,
    signal: leaving.signal,
    logger: { debug: log('debug'), info: log('info'), warn: log('warn'), error: log('error') },
    onEvent: (event) => {
      if (event.type === 'status') say({ kind: 'status', status: event.status });
      if (event.type === 'checkpoint') say({ kind: 'checkpoint', id: event.checkpoint.id });
    },
  });
  say({ kind: 'running', id: running.id });
  const lines = createInterface({ input: process.stdin });
  lines.on('line', (line) => {
    const [what, ...rest] = line.split(' ');
    const asked =
      what === 'stop'
        ? running.stop(rest[0] === undefined ? {} : { savepoint: rest[0] })
        : what === 'cancel'
          ? running.cancel()
          : what === 'savepoint'
            ? running.savepoint(rest[0]!)
            : what === 'checkpoint'
              ? running.checkpoint()
              : what === 'tree'
                ? running.tree()
                : what === 'metrics'
                  ? running.metrics()
                  : running.query('counts', 'value', rest[0]!);
    asked.then(
      (value) => say({ kind: 'answer', value }),
      (error: { code?: string; message: string }) => say({ kind: 'refused', code: error.code, message: error.message }),
    );
  });
  try {
    say({ kind: 'ended', result: await running.finished });
  } finally {
    lines.close();
  }
} catch (error) {
  const { code, message } = error as { code?: string; message: string };
  say({ kind: 'ended', message, ...(code === undefined ? {} : { code }) });
} finally {
  await zk.close();
}
