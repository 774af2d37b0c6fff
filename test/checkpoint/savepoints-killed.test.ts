import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { temporaryFolder } from '../protocols/lab.ts';
import { Child, published } from '../protocols/processes.ts';

// Those that come before a savepoint counts, and the one behind it; `restore.import` is of a start from one.
describe('a process that is killed while it makes a savepoint', () => {
  it.each(['savepoint.file', 'savepoint.metadata', 'savepoint.written'])('at %s goes on as if none had been asked for', async (step) => {
    const folder = await temporaryFolder();
    const killed = new Child('counting-process.ts', [folder, '2000', '5', '{}', join(folder, 'savepoint')], `${step}=kill`);
    expect(await killed.ended, killed.errors).toBe('SIGKILL');
    expect(existsSync(join(folder, 'savepoint', 'metadata'))).toBe(step === 'savepoint.written');
    const next = new Child('counting-process.ts', [folder, '2000', '0', '{"parallelism":2}']);
    expect(await next.ended, next.errors).toBe(0);
    const counts = (await published<{ key: string; n: number }>(join(folder, 'out'))).map(({ key, n }) => `${key} ${n}`);
    expect(new Set(counts).size).toBe(counts.length);
    expect(counts.length).toBe(2000);
  });

  it('or while it takes one over goes on with that the next time', async () => {
    const folder = await temporaryFolder();
    const savepoint = join(folder, 'savepoint');
    const first = new Child('counting-process.ts', [folder, '2000', '5', '{}', savepoint]);
    await first.said(/^savepoint$/);
    first.process.kill('SIGKILL');
    await first.ended;
    const elsewhere = await temporaryFolder();
    const options = JSON.stringify({ restore: { from: savepoint } });
    const killed = new Child('counting-process.ts', [elsewhere, '2000', '0', options], 'restore.import=kill');
    expect(await killed.ended, killed.errors).toBe('SIGKILL');
    const next = new Child('counting-process.ts', [elsewhere, '2000', '0', options]);
    expect(await next.ended, next.errors).toBe(0);
    // What the first had committed before the savepoint lies in its own folder; the rest is here, each once.
    const counts = (await published<{ key: string; n: number }>(join(elsewhere, 'out'))).map(({ key, n }) => `${key} ${n}`);
    expect(new Set(counts).size).toBe(counts.length);
    expect(counts).toContain('k6 285');
  });
});
