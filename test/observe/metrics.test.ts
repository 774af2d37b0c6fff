// What a job says of itself in figures, and that docs/metrics.md has a word for each.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { job, level, type MetricSample, type RunningJob, tumbling, value } from 'millrace';
import { describe, expect, it } from 'vitest';
import { checkpointsIn, ends, Feed, Seen, temporaryFolder } from '../protocols/lab.ts';

interface Hit {
  readonly user: string;
  readonly at: number;
}

const PAGE = readFileSync(new URL('../../docs/metrics.md', import.meta.url), 'utf8');
const documented = new Set([...PAGE.matchAll(/`(\w+)`/g)].map(([, name]) => name));

async function counting() {
  const folder = await temporaryFolder();
  const feed = new Feed<Hit>({ bounded: false });
  const seen = new Seen<unknown>();
  const hits = job('hits', (env) => {
    const byUser = env.source('in', feed, { timestamp: (hit) => hit.at }).keyBy((hit) => hit.user);
    byUser
      .process('counted', {
        state: { n: value({ default: 0 }) },
        onRecord: (_, ctx) => ctx.state.n.update((n) => n + 1),
      })
      .sink('none', seen);
    byUser
      .window(tumbling(1000))
      .reduce('windows', (left) => left)
      .sink('out', seen);
  });
  const running = ends(
    await hits.start({ control: {}, parallelism: 2, state: level({ directory: join(folder, 'state') }), checkpoints: checkpointsIn(folder, { tolerate: 1 }) }),
  );
  // A third of all is of one user.
  const all = Array.from({ length: 30_000 }, (_, i): Hit => ({ user: i % 3 === 0 ? 'ada' : `user-${i % 4096}`, at: i }));
  for (let i = 0; i < all.length; i += 1000) feed.push(all.slice(i, i + 1000));
  await feed.taken();
  return { running, feed };
}
const total = (samples: readonly MetricSample[], name: string, labels: Record<string, string> = {}): number =>
  samples.filter((s) => s.name === name && Object.entries(labels).every(([k, v]) => s.labels[k] === v)).reduce((sum, s) => sum + s.value, 0);

describe('metrics', () => {
  it('say of state what is there, what the last checkpoint has written of it, and which keys are hot', async () => {
    const { running, feed } = await counting();
    const first = await running.checkpoint();
    const before = await running.metrics();
    expect(total(before, 'recordsIn', { task: 'counted-0' }) + total(before, 'recordsIn', { task: 'counted-1' })).toBe(30_000);
    expect(total(before, 'keyedStateRows', { uid: 'counted', state: 'n' })).toBe(4097);
    expect(total(before, 'checkpointsCompleted')).toBe(1);
    expect(total(before, 'lastCheckpointBytes')).toBe(first.bytes);
    const stored = total(before, 'stateStoredBytes');
    expect(stored).toBe(first.bytes);
    expect(total(before, 'stateDeltaBytes')).toBe(stored);

    // The next one writes what has changed, and names the rest.
    await feed.push([{ user: 'ada', at: 30_000 }]).taken();
    const second = await running.checkpoint();
    const after = await running.metrics();
    expect(total(after, 'stateDeltaBytes')).toBe(second.bytes - first.bytes);
    const ofCounts = (samples: readonly MetricSample[]): number =>
      [0, 1].reduce((sum, i) => sum + total(samples, 'stateDeltaBytes', { task: `counted-${i}` }), 0);
    expect(ofCounts(after)).toBeLessThan(ofCounts(before) / 10);
    expect(total(after, 'stateWrittenBytes')).toBe(second.bytes);
    expect(total(after, 'lastCheckpointBytes')).toBe(second.bytes);

    const share = total(after, 'hotKeyShare', { uid: 'counted', key: 'ada' });
    expect(share).toBeGreaterThan(0.15);
    expect(share).toBeLessThan(0.5);
    const { controlUrl } = running as RunningJob & { controlUrl: string };
    const states = (await (await fetch(`${controlUrl}/jobs/hits/state?uid=counted`)).json()) as { state: string; hotKeys: { key: string; share: number }[] }[];
    expect(states.map(({ state, hotKeys }) => [state, hotKeys[0]!.key])).toEqual([['n', 'ada']]);
    await running.stop();
  });

  it('each have a word on the page', async () => {
    const { running } = await counting();
    await running.checkpoint();
    const names = new Set((await running.metrics()).map(({ name }) => name));
    const tree = JSON.stringify(await running.tree());
    for (const [, name] of tree.matchAll(/"(state\w+|checkpoints\w+|hotKey\w+|lastCheckpoint\w*|acknowledgements\w+)":(?:null|[\d.-])/g)) names.add(name!);
    expect([...names].filter((name) => !documented.has(name)).sort()).toEqual([]);
    expect(names.size).toBeGreaterThan(20);
    await running.stop();
  });
});
