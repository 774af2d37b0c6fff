// Live state of a job in threads: every question has the answer that it has in one thread (query.test.ts says which).

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ensureBuilt } from '../e2e/trial.ts';

const program = fileURLToPath(new URL('./asked-process.ts', import.meta.url));
const typescript = fileURLToPath(new URL('../../scripts/typescript.mjs', import.meta.url));

type Answers = Record<string, unknown>;
let folder: string;
let here: Answers;
let threads: Answers;

beforeAll(async () => {
  ensureBuilt();
  folder = mkdtempSync(join(tmpdir(), 'millrace-asked-'));
  const child = spawn(process.execPath, ['--import', typescript, program], {
    env: { ...process.env, MILLRACE_ASKED: folder },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let out = '';
  child.stdout.on('data', (data) => (out += data));
  expect(await new Promise((resolve) => child.on('close', resolve))).toBe(0);
  ({ here, threads } = JSON.parse(out) as { here: Answers; threads: Answers });
}, 180_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('what is asked of a job in threads', () => {
  it('has the answer that it has in one: keys, windows, joins, lists, broadcast maps, refusals, scans, figures, and after a restart', () => {
    const { late: _, hot: __, ...all } = threads;
    const { late: ___, hot: ____, ...same } = here;
    expect(all).toEqual(same);
  });

  it('comes with the rows, of which views are made where it was asked', () => {
    expect(threads).toMatchObject({
      'sums value "a"': { key: 'a', n: 29_700 },
      'kinds by {"$bigint":"7"}': { $map: expect.any(Array) },
      'kinds some "a"': [0, 102, 204, 300, 402, 504],
      'plain mine {"$undefined":true}': [0, 100, 200, 300, 400, 500],
      'sums value "nobody"': { $undefined: true },
      // A class of the program, which no message carries.
      twice: 59_400,
      'nothing value "a"': { code: 'STATE_NOT_FOUND' },
      'sums value {"an":"object"}': { code: 'KEY_UNSUPPORTED' },
      'breaks broken "a"': { code: 'USER_FUNCTION_FAILED', of: 'breaks', cause: 'no result' },
    });
    expect((threads.scan as string[]).length).toBe(30);
    expect(threads.hot).toContain('sums');
  });

  it('waits for a region that restarts, and is refused once the job has ended', () => {
    expect(threads).toMatchObject({ restored: { key: 'b', n: 29_800 }, scanned: 6, ended: 'JOB_ENDED' });
    for (const { late } of [here, threads]) expect(['answered', 'JOB_ENDED']).toContain(late);
  });
});
