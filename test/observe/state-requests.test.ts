// Keyed state through the control door.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ingress, job, type Key, level, list, map, memory, type RunningJob, value } from 'millrace';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

let folder: string;
const started: RunningJob[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'millrace-state-door-'));
  vi.stubEnv('TMPDIR', folder);
});
afterEach(async () => {
  for (const running of started.splice(0)) await running.cancel().catch(() => {});
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true, force: true });
});

interface Hit {
  readonly key: Key;
  readonly n: number;
}

async function start(hits: readonly Hit[], state = memory(), parallelism = 2): Promise<(path: string) => Promise<{ status: number; body: unknown }>> {
  const source = ingress<Hit>();
  let done = 0;
  const running = await job('hits', (env) => {
    const byKey = env.source('in', source).keyBy(({ key }) => key);
    byKey
      .reduce('sums', (l, r) => ({ key: r.key, n: l.n + r.n }))
      .forEach('out', () => {
        done += 1;
      });
    byKey.process('kinds', {
      state: { last: value<number>(), all: list<number>(), by: map<number, bigint>() },
      onRecord({ n }, { state: s }) {
        s.last.set(n);
        for (let i = 0; i < n; i++) s.all.add(i);
        s.by.set(n, BigInt(n));
        done += 1;
      },
    });
  }).start({ control: {}, state, parallelism });
  started.push(running);
  for (const hit of hits) await source.send(hit);
  await vi.waitFor(() => expect(done).toBe(2 * hits.length), { timeout: 60_000, interval: 10 });
  const url = (running as RunningJob & { controlUrl: string }).controlUrl;
  return async (path) => {
    const response = await fetch(`${url}/jobs/hits/state${path}`);
    return { status: response.status, body: await response.json() };
  };
}
const asked = (params: Record<string, string>): string => `?${new URLSearchParams(params)}`;

describe.each<[string, () => ReturnType<typeof memory>]>([
  ['memory()', () => memory()],
  ['level() with next to nothing in memory', () => level({ directory: join(folder, 'state'), cacheBytes: 1 })],
])('the state of a job, kept in %s', (_name, state) => {
  it('is listed: operators, states, kinds, rows and bytes', async () => {
    const ask = await start(
      [
        { key: 'a', n: 1 },
        { key: 'b', n: 2 },
        { key: 'a', n: 3 },
      ],
      state(),
    );
    const row = (uid: string, name: string, kind: string, rows: number) => ({ uid, state: name, kind, rows, bytes: expect.any(Number) });
    const kinds = [row('kinds', 'last', 'value', 2), row('kinds', 'all', 'list', 2), row('kinds', 'by', 'map', 3)];
    expect(await ask('')).toEqual({ status: 200, body: [row('sums', 'value', 'reduce', 2), ...kinds] });
    expect((await ask(asked({ uid: 'kinds' }))).body).toEqual(kinds);
  });

  it('is given of one key, as JSON that says what is no JSON', async () => {
    const ask = await start(
      [
        { key: 'a', n: 2 },
        { key: 12n, n: 3 },
      ],
      state(),
    );
    expect((await ask(`/get${asked({ uid: 'sums', state: 'value', key: 'a' })}`)).body).toEqual({ found: true, value: { key: 'a', n: 2 } });
    expect((await ask(`/get${asked({ uid: 'kinds', state: 'by', key: '12n' })}`)).body).toEqual({ found: true, value: { $map: [[3, { $bigint: '3' }]] } });
    expect((await ask(`/get${asked({ uid: 'kinds', state: 'all', key: '12' })}`)).body).toMatchObject({ found: false });
  });

  it('is scanned: every key once, those with a prefix, up to a limit, or the largest', async () => {
    const keys = Array.from({ length: 500 }, (_, i) => `${i % 2 === 0 ? 'even' : 'odd'} ${i}`);
    const ask = await start([...keys.map((key) => ({ key, n: 1 })), { key: ['odd', 1], n: 40 }, { key: 'even 8', n: 70 }], state());
    const scan = async (params: Record<string, string>) =>
      (await ask(`/scan${asked({ uid: 'kinds', state: 'last', ...params })}`)).body as { key: Key; value: number }[];
    const all = await scan({ limit: '10000' });
    expect(all.map(({ key }) => JSON.stringify(key)).sort()).toEqual([...keys, ['odd', 1]].map((key) => JSON.stringify(key)).sort());
    expect((await scan({ limit: '7' })).length).toBe(7);
    expect((await scan({})).length).toBe(100);
    const odd = await scan({ prefix: 'odd', limit: '1000' });
    expect(odd.length).toBe(251);
    expect(odd.every(({ key }) => String(Array.isArray(key) ? key[0] : key).startsWith('odd'))).toBe(true);
    const largest = await scan({ state: 'all', largest: '2' });
    expect(largest.map(({ key }) => key)).toEqual(['even 8', ['odd', 1]]);
    expect(largest[0]).toMatchObject({ bytes: expect.any(Number) });
  });

  it.each<[what: string, path: string, status: number, code: string]>([
    ['an operator that is not there', `/get${asked({ uid: 'x', state: 'value', key: 'a' })}`, 404, 'STATE_NOT_FOUND'],
    ['a state that is not there', `/scan${asked({ uid: 'sums', state: 'x' })}`, 404, 'STATE_NOT_FOUND'],
    ['an operator without state', `/scan${asked({ uid: 'in' })}`, 404, 'STATE_NOT_FOUND'],
    ['what is no key', `/get${asked({ uid: 'sums', state: 'value', key: '{}' })}`, 400, 'KEY_UNSUPPORTED'],
    ['no key at all', `/get${asked({ uid: 'sums', state: 'value' })}`, 400, 'OPTION_INVALID'],
    ['a limit that is none', `/scan${asked({ uid: 'sums', limit: '0' })}`, 400, 'OPTION_INVALID'],
    ['another question', '/weather', 404, 'CONTROL_NOT_FOUND'],
  ])('refuses %s with what to do', async (_what, path, status, code) => {
    const ask = await start([], state());
    expect(await ask(path)).toEqual({ status, body: { code, message: expect.stringMatching(/\.$/), todo: expect.stringMatching(/['.]$/), retryable: false } });
  });
});
