// Makes a savepoint of the format that this release writes, of the program in stored-program.ts:
//
//   npm run build && node --import ./scripts/typescript.mjs test/checkpoint/make-savepoint.ts test/data/savepoints/format-N
//
// Once a format; those of earlier ones stay, and stay readable (stored-savepoints.test.ts).

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { type Entry, FIRST, storedProgram } from './stored-program.ts';

const [target] = process.argv.slice(2);
if (target === undefined) throw new Error('Name the folder.');
const folder = await mkdtemp(join(tmpdir(), 'millrace-'));
let taken!: () => void;
const all = new Promise<void>((resolve) => {
  taken = resolve;
});
async function* records(): AsyncGenerator<Entry> {
  yield* FIRST;
  // Whoever asks for more has taken all there was.
  taken();
  await new Promise(() => {});
}
const running = await storedProgram(records, { told: [], sums: [], raw: [], lists: [] }).start({
  parallelism: 2,
  checkpoints: { directory: folder, every: 3_600_000 },
});
await all;
const savepoint = await running.savepoint(resolve(target));
await running.cancel();
await rm(folder, { recursive: true });
console.log(savepoint);
