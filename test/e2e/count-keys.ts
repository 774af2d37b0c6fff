// Runs counted-keys.ts in a process with a heap of a given size.

import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { bundled } from '../bundled.ts';

export interface Counted {
  readonly status: string;
  readonly restarts: number;
  /** Results that were one, two, and anything else. */
  readonly first: number;
  readonly second: number;
  readonly wrong: number;
  readonly checkpoints: number;
  /** Largest resident set, in bytes. */
  readonly peak: number;
}

export function countKeys({ keys, heapMb, cacheBytes }: { keys: number; heapMb: number; cacheBytes: number }): Counted {
  const directory = mkdtempSync(join(tmpdir(), 'millrace-keys-'));
  const program = fileURLToPath(new URL('./counted-keys.ts', import.meta.url));
  try {
    const { status, signal, stdout, stderr } = spawnSync(
      process.execPath,
      [`--max-old-space-size=${heapMb}`, bundled(program), String(keys), directory, String(cacheBytes)],
      { encoding: 'utf8' },
    );
    if (status !== 0 || stderr !== '') throw new Error(`The process ended with ${signal ?? status}.\n${stderr}`);
    return JSON.parse(stdout) as Counted;
  } finally {
    rmSync(directory, { recursive: true });
  }
}
