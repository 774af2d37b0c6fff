import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { serve } from '../../docs/examples/embedded-http.ts';
import { build, Place, ROOT } from '../cli/millrace-process.ts';

const example = (name: string): string => join(ROOT, 'docs', 'examples', name);

describe('the examples, run by the command', () => {
  let place: Place;
  beforeAll(build, 180_000);
  beforeEach(() => {
    place = new Place();
  });
  afterEach(() => place.remove());

  it('word-count counts words', async () => {
    const { code, stdout } = await place.run('run', example('word-count.ts'));
    expect(code).toBe(0);
    expect(stdout.split('\n').filter((line) => /^(the|mill|turns|water): \d$/.test(line))).toHaveLength(8);
    expect(stdout).toContain('the: 3\n');
  });

  it('monitoring shows the processes of this machine, and resumes after SIGKILL', async () => {
    const first = place.start(['run', example('monitoring.ts'), '--every', '300ms', '--', '--window', '2s', '--slide', '1s']);
    await first.said(/^monitoring: begins anew$/m);
    const [table] = await first.said(
      /^running, event time \d\d:\d\d:\d\d, checkpoint .*, began anew, \d+ processes\nPROCESS .* CPU % now +mean 2s +MB now +max 1m\n.*\d\.\d.*\n/m,
      'stdout',
    );
    expect(table).not.toContain('NaN');
    const tasks = JSON.parse((await place.run('tree', 'monitoring', '--json')).stdout) as { children: { children: { name: string }[] }[] };
    expect(JSON.stringify(tasks)).toContain('cpu-mean-0');
    let checkpoints: { id: number }[] = [];
    while (checkpoints.length === 0) checkpoints = JSON.parse((await place.run('checkpoints', '--json')).stdout) as { id: number }[];
    first.child.kill('SIGKILL');
    await first.ended;
    const second = place.start(['run', example('monitoring.ts'), '--', '--window', '2s', '--slide', '1s']);
    const [, id] = await second.said(/^monitoring: resumes from checkpoint (\d+), taken \d\d:\d\d:\d\d$/m);
    await second.said(new RegExp(`resumed from checkpoint ${id} of`), 'stdout');
    second.child.kill('SIGINT');
    const ended = await second.ended;
    expect(ended.code).toBe(0);
    expect(ended.stderr).toMatch(/^monitoring: stopped, checkpoint \d+/m);
    expect(ended.stderr).not.toContain('Warning');
    expect(place.announced()).toEqual([]);
  });

  it('monitoring gives the means and maxima of recorded samples, each window once', async () => {
    // Two processes, a sample a second for a minute: a runs hotter from second to second, b holds memory for one moment.
    const samples = Array.from({ length: 60 }, (_, s) => [
      { at: s * 1000, process: 'a 1', cpu: s, memory: 100 },
      { at: s * 1000, process: 'b 2', cpu: 5, memory: s === 20 ? 900 : 10 },
    ]).flat();
    place.write('recorded.ndjson', samples.map((sample) => `${JSON.stringify(sample)}\n`).join(''));
    const flags = ['--input', 'recorded.ndjson', '--window', '10s', '--memory', '20s', '--slide', '10s', '--output', 'out'];
    const { code, stderr } = await place.run('run', example('monitoring.ts'), '--parallelism', '2', '--', ...flags);
    expect({ code, ended: /monitoring: finished/.test(stderr) }).toEqual({ code: 0, ended: true });
    const results = (prefix: string) =>
      readdirSync(join(place.folder, 'out'))
        .filter((name) => name.startsWith(prefix))
        .flatMap((name) =>
          readFileSync(join(place.folder, 'out', name), 'utf8')
            .trimEnd()
            .split('\n'),
        )
        .map((line) => JSON.parse(line) as { key: string; start: number; end: number; value: number })
        .sort((x, y) => x.key.localeCompare(y.key) || x.start - y.start);
    expect(results('cpu')).toEqual(
      ['a 1', 'b 2'].flatMap((key) =>
        [0, 1, 2, 3, 4, 5].map((w) => ({ key, start: w * 10_000, end: (w + 1) * 10_000, value: key === 'a 1' ? w * 10 + 4.5 : 5 })),
      ),
    );
    expect(results('memory').map(({ key, start, value }) => [key, start / 1000, value])).toEqual(
      ['a 1', 'b 2'].flatMap((key) => [-10, 0, 10, 20, 30, 40, 50].map((start) => [key, start, key === 'a 1' ? 100 : start === 10 || start === 20 ? 900 : 10])),
    );
  });

  it('monitoring refuses flags that mean nothing', async () => {
    for (const [flags, said] of [
      [['--window', '10'], /'10' is no time: write 10s/],
      [['--colour'], /Unknown option '--colour'/],
    ] as const) {
      const { code, stderr } = await place.run('run', example('monitoring.ts'), '--', ...flags);
      expect(code).toBe(1);
      expect(stderr).toMatch(/^MODULE_FAILED: /);
      expect(stderr).toMatch(said);
    }
  });
});

describe('the service with a job inside', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'millrace-service-'));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  it('counts what it is sent, serves its door, and goes on where it was stopped', async () => {
    const options = { checkpoints: join(folder, 'checkpoints'), windowMs: 1e12 };
    const pagesOf = async (url: string, wanted: number) => {
      for (;;) {
        const pages = (await (await fetch(`${url}/pages`)).json()) as Record<string, number>;
        if (pages['/'] === wanted) return pages;
      }
    };
    const hit = (url: string, body: string) => fetch(`${url}/hits`, { method: 'POST', body });

    const first = await serve(options);
    const url = `http://127.0.0.1:${(first.server.address() as AddressInfo).port}`;
    for (let i = 0; i < 3; i++) expect((await hit(url, '{"page": "/"}')).status).toBe(204);
    expect((await hit(url, '{')).status).toBe(400);
    expect(await pagesOf(url, 3)).toEqual({ '/': 3 });
    expect(await (await fetch(`${url}/millrace/jobs`)).json()).toMatchObject([{ name: 'hits', status: 'running' }]);
    await first.close();
    expect(first.running.status).toBe('stopped');

    const second = await serve(options);
    const again = `http://127.0.0.1:${(second.server.address() as AddressInfo).port}`;
    await hit(again, '{"page": "/"}');
    expect(await pagesOf(again, 4)).toEqual({ '/': 4 });
    await second.close();
  });
});
