import { mkdtemp, readdir, readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { job, seconds, sum, tumbling, type Windowed } from 'millrace';
import { collect, files } from 'millrace/connectors';
import { describe, expect, it } from 'vitest';

describe('smoke', () => {
  it('counts', async () => {
    const out: { w: string; n: number }[] = [];
    const j = job('counts', (env) => {
      env
        .fromArray('in', ['a', 'b', 'a', 'c', 'a'])
        .map((w) => ({ w, n: 1 }))
        .keyBy((x) => x.w)
        .reduce('sum', (l, r) => ({ w: l.w, n: l.n + r.n }))
        .sink('out', collect(out));
    });
    const r = await j.run();
    expect(r.status).toBe('finished');
    expect(out).toEqual([
      { w: 'a', n: 1 },
      { w: 'b', n: 1 },
      { w: 'a', n: 2 },
      { w: 'c', n: 1 },
      { w: 'a', n: 3 },
    ]);
  });
  for (const p of [1, 2, 4])
    it(`windows at ${p}`, async () => {
      const dir = await mkdtemp(join(tmpdir(), 'mr-'));
      const out: Windowed<string, number>[] = [];
      const values = Array.from({ length: 10000 }, (_, i) => ({ k: `k${i % 7}`, v: i, at: i * 10 }));
      const j = job('wins', (env) => {
        const w = env
          .fromArray('in', values, { timestamp: (v) => v.at })
          .keyBy((v) => v.k)
          .window(tumbling(seconds(10)))
          .aggregate(
            'w',
            sum((v) => v.v),
          );
        w.sink('out', collect(out));
        w.sink('files', files.sink({ directory: join(dir, 'out') }));
      });
      const r = await j.run({ parallelism: p, checkpoints: { directory: join(dir, 'chk'), every: 5 } });
      expect(r.status).toBe('finished');
      expect(out.length).toBe(70);
      expect(out.reduce((s, w) => s + w.value, 0)).toBe(values.reduce((s, v) => s + v.v, 0));
      let lines = 0;
      for (const f of await readdir(join(dir, 'out'))) if (!f.startsWith('.')) lines += (await readFile(join(dir, 'out', f), 'utf8')).trim().split('\n').length;
      expect(lines).toBe(70);
      const again = await j.run({ parallelism: p, checkpoints: { directory: join(dir, 'chk') } });
      expect(again.status).toBe('finished');
      expect(out.length).toBe(70);
    });
});
