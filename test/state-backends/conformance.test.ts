import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { level, memory } from '../../state-backends/index.ts';
import { conformance, tiny } from './conformance.ts';
import { linking } from './model.ts';

const directory = mkdtempSync(join(tmpdir(), 'millrace-state-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

conformance('memory()', () => memory());
conformance('level(), all of it in memory', () => level({ directory }));
conformance('level(), next to nothing in memory', () => tiny(directory));
conformance('level(), linked, all of it in memory', () => linking(level({ directory })));
conformance('level(), linked, next to nothing in memory', () => linking(tiny(directory)));

test('level() deletes the directory of an attempt when it is closed, and never opens one twice', async () => {
  const own = join(directory, 'own');
  const first = await level({ directory: own }).open({ name: 'host/0-1', tracked: true });
  await expect(level({ directory: own }).open({ name: 'host/0-1', tracked: true })).rejects.toMatchObject({ code: 'STATE_IO', retryable: true });
  await first.close();
  await first.close();
  expect(readdirSync(join(own, 'host'))).toEqual([]);
});
