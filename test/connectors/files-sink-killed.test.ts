import { spawnSync } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { FILES_SINK_STEPS } from '../../src/connectors/files-sink.ts';
import { bundled } from '../bundled.ts';
import { LONG } from '../long.ts';
import { temporaryFolder } from './reading.ts';

const here = dirname(fileURLToPath(import.meta.url));

function write(directory: string, attempt: number, faults: string): NodeJS.Signals | number | null {
  const { signal, status, stderr } = spawnSync(process.execPath, [bundled(join(here, 'killed-writer.ts')), directory, String(attempt)], {
    env: { ...process.env, MILLRACE_FAULTS: faults },
    encoding: 'utf8',
  });
  if (signal === null && status !== 0) throw new Error(stderr);
  return signal ?? status;
}

// In short every third step: npm test kills whole jobs at each of them.
it.each(FILES_SINK_STEPS.filter((_, i) => LONG || i % 3 === 0))('a process killed at %s, twice, leaves every record to be published once', async (step) => {
  const directory = await temporaryFolder();
  // The first dies at the latest with open files of two commits: the second has something to take over.
  const ends = [write(directory, 1, `sink.files.marker.write=kill@3,${step}=kill@2`), write(directory, 2, `${step}=kill`), write(directory, 3, '')];
  expect(ends).toEqual(['SIGKILL', 'SIGKILL', 0]);
  const lines: string[] = [];
  for (const bucket of ['a', 'b', 'c']) {
    for (const name of (await readdir(join(directory, bucket))).sort())
      lines.push(...(await readFile(join(directory, bucket, name), 'utf8')).split('\n').slice(0, -1));
  }
  expect(lines).toEqual(['a1', 'a2', 'a3', 'b1', 'b2', 'b3', 'c1', 'c2', 'c3']);
});
