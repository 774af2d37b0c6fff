// Not in npm test. npm run test:chaos: three replicas and an ensemble of three, and faults drawn from a seed while the job runs: processes killed and stopped, networks parted.
// In the end every row must be there once. Writes docs/chaos-cluster.md.
//
// MILLRACE_CLUSTER_CHAOS='5,2' runs so many faults, and so many of those that come together, and writes nothing; MILLRACE_CHAOS_SEED repeats what is drawn; MILLRACE_CHAOS_DOORS has networks
// parted by doors and proxies where they could be parted by taking links down.

import { writeFileSync } from 'node:fs';
import { availableParallelism, cpus, totalmem, type } from 'node:os';
import { fileURLToPath } from 'node:url';
import { beforeAll, expect, it } from 'vitest';
import { ChaosCluster, REPLICAS } from '../cluster/chaos-cluster.ts';
import { FAULTS, type Fault, SESSION_MS, TOGETHER } from '../cluster/faults.ts';
import { networksOf } from '../cluster/networks.ts';
import { ensureBuilt, FOUR, Input } from '../e2e/trial.ts';
import type { Workload } from '../e2e/workloads.ts';
import { NO_ZOOKEEPER, ZooKeeperEnsemble } from '../services/zookeeper.ts';

const BY_SCRIPT = process.env.npm_lifecycle_event === 'test:chaos';
const ASKED_FOR = BY_SCRIPT || process.env.MILLRACE_CLUSTER_CHAOS !== undefined;
const [ALONE = 0, SEVERAL = 0] = (process.env.MILLRACE_CLUSTER_CHAOS ?? '56,13').split(',').map(Number);
const COUNT = ALONE + SEVERAL;
const SEED = Number(process.env.MILLRACE_CHAOS_SEED ?? Date.now() % 1_000_000);
const LOG = fileURLToPath(new URL('../../docs/chaos-cluster.md', import.meta.url));
/** Faults of one trial: the job then ends, and what it wrote is compared. */
const A_TRIAL = 7;
const WORKLOADS: readonly Workload[] = ['cpu', 'q5', 'wc'];

beforeAll(() => {
  if (ASKED_FOR) ensureBuilt();
}, 180_000);

interface Done {
  readonly fault: Fault;
  readonly workload: Workload;
  /** Until it was seen, and from then until the job ran again; undefined: nothing restarted. */
  readonly detectedMs: number | undefined;
  readonly recoveredMs: number | undefined;
  /** Whom it befell had tasks. */
  readonly hadTasks: boolean;
}

it.runIf(ASKED_FOR && !NO_ZOOKEEPER)('killed, stopped and parted anywhere, a cluster writes every row once', { timeout: 3_600_000 }, async () => {
  const begun = Date.now();
  const random = generator(SEED);
  const inputs = new Map<Workload, Input>();
  const wrong: string[] = [];
  const done: Done[] = [];
  let registered = 0;
  const networks = await networksOf(REPLICAS, { doors: process.env.MILLRACE_CHAOS_DOORS !== undefined });
  let ensemble: ZooKeeperEnsemble | undefined;
  try {
    ensemble = await ZooKeeperEnsemble.start({ host: networks.zookeeperHost });
    for (let trial = 0; done.length < COUNT; trial++) {
      const workload = WORKLOADS[trial % WORKLOADS.length]!;
      const input = inputs.get(workload) ?? new Input(workload, { records: 100_000, files: FOUR });
      inputs.set(workload, input);
      const cluster = await ChaosCluster.start(input, ensemble, networks);
      try {
        const count = Math.min(A_TRIAL, COUNT - done.length);
        for (let i = 0; i < count; i++) {
          // Each kind in turn, beginning anywhere, and whom it meets by chance.
          const kinds = (done.length < ALONE ? Object.keys(FAULTS) : Object.keys(TOGETHER)) as Fault[];
          const fault = kinds[(done.length + SEED) % kinds.length]!;
          const seen = await cluster.suffer(fault, random);
          done.push({ fault, workload, ...seen });
        }
        wrong.push(
          ...(await cluster.finish()).map(
            (sentence) =>
              `${workload}, after ${done
                .slice(-count)
                .map(({ fault }) => fault)
                .join(', ')}: ${sentence}`,
          ),
        );
      } finally {
        registered += cluster.registered;
        await cluster.close();
      }
      if (wrong.length > 0) break;
    }
  } finally {
    for (const input of inputs.values()) input.remove();
    await Promise.resolve(ensemble?.close()).finally(() => networks.close());
  }
  const log = page(done, networks.how, registered, wrong, (Date.now() - begun) / 60_000);
  console.log(log);
  if (BY_SCRIPT && process.env.MILLRACE_CLUSTER_CHAOS === undefined) writeFileSync(LOG, log);
  expect(wrong).toEqual([]);
  // What befalls a worker that does nothing says nothing.
  const workers = done.filter(({ fault }) => fault === 'SIGKILL of a worker');
  expect(workers.filter(({ hadTasks }) => hadTasks).length).toBeGreaterThanOrEqual(workers.length / 2);
});

function page(done: readonly Done[], how: string, registered: number, wrong: readonly string[], minutes: number): string {
  const rows = (Object.keys({ ...FAULTS, ...TOGETHER }) as Fault[]).flatMap((fault) => {
    const these = done.filter((each) => each.fault === fault);
    if (these.length === 0) return [];
    const [detected, recovered] = [these.map((each) => each.detectedMs), these.map((each) => each.recoveredMs)].map((all) =>
      all.filter((ms) => ms !== undefined),
    );
    return [
      `| ${fault} | ${these.length} | ${recovered!.length} | ${share(detected!, 0.5)} | ${share(detected!, 0.99)} | ${share(recovered!, 0.5)} | ${share(recovered!, 0.99)} |`,
    ];
  });
  const all = done.flatMap(({ recoveredMs }) => (recoveredMs === undefined ? [] : [recoveredMs]));
  return `# Chaos: a cluster

Written by \`npm run test:chaos\` (test/chaos/cluster.test.ts). Three replicas of a service with two slots each run one job at parallelism 3, with an ensemble of three ZooKeeper servers and sessions of ${SESSION_MS / 1000} s, while faults
drawn from a seed befall them. After ${A_TRIAL} faults the job runs to its end, and what its files sinks have published is compared row by row.
The replicas ran ${how}.
Of each checkpoint that was seen to be registered, by ZooKeeper's order, its leader must not have been succeeded, and epochs must not go back; ${registered} were looked at. Of ${done.filter(({ fault }) => fault === 'SIGKILL of a worker').length} workers that were killed ${done.filter(({ fault, hadTasks }) => fault === 'SIGKILL of a worker' && hadTasks).length} had tasks.

${wrong.length === 0 ? 'Nothing was wrong.' : wrong.map((sentence) => `- ${sentence.split('\n')[0]}`).join('\n')}

Seed ${SEED}, ${done.length} faults, ${Math.round(minutes)} minutes, ${type()}, ${availableParallelism()} × ${cpus()[0]?.model.trim()}, ${Math.round(totalmem() / 2 ** 30)} GB, Node ${process.version}.

Detection is from the fault to the first restart or election that follows it; recovery from there until the job says that it runs, in seconds. Of all recoveries: p50 ${share(all, 0.5)} s, p99 ${share(all, 0.99)} s.
The kinds behind «${Object.keys(FAULTS).at(-1)}» are several faults at once, or come and go.

| fault | times | restarts or elections followed | detection p50 | p99 | recovery p50 | p99 |
|---|---|---|---|---|---|---|
${rows.join('\n')}
`;
}

function share(values: readonly number[], of: number): string {
  if (values.length === 0) return '–';
  const sorted = [...values].sort((a, b) => a - b);
  return (sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * of))]! / 1000).toFixed(1);
}

/** mulberry32. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}
