// The two halves of the files connector under one name.

import type { TransactionalSink } from '../graph/sink.ts';
import type { Source } from '../graph/source.ts';
import { type FilesSinkOptions, filesSink } from './files-sink.ts';
import { type FilesSourceOptions, filesSource } from './files-source.ts';

/**
 * Files as source and as sink: what is read is written exactly once.
 * @example
 * import { readdir, readFile, writeFile } from 'node:fs/promises';
 *
 * await writeFile('orders.ndjson', '{"total":12}\n{"total":30}\n');
 * const copy = job('copy', (env) => {
 *   env.source('orders', files.source({ path: 'orders.ndjson' })).sink('copies', files.sink({ directory: 'copies' }));
 * });
 * await copy.run({ checkpoints: { directory: 'checkpoints' } });
 * const [name] = (await readdir('copies')).filter((found) => found.endsWith('.ndjson'));
 * assert.equal(await readFile(`copies/${name}`, 'utf8'), '{"total":12}\n{"total":30}\n');
 */
export const files = {
  /**
   * Reads each file from its first record to its last; after a restore it goes on exactly where it was. Without `watch` it is bounded.
   *
   * @throws OPTION_INVALID; FILE_NOT_FOUND, FILE_UNREADABLE, FILE_CHANGED in the job. A record that does not decode is a dead letter.
   * @example
   * import { writeFile } from 'node:fs/promises';
   *
   * await writeFile('hosts.csv', 'host,cpu\nmill,20\n');
   * const seen: { host: string; cpu: string }[] = [];
   * await job('hosts', (env) => {
   *   env.source('hosts', files.source<{ host: string; cpu: string }>({ path: '*.csv', format: csv() })).sink('seen', collect(seen));
   * }).run();
   * assert.deepEqual(seen, [{ host: 'mill', cpu: '20' }]);
   */
  source: <T>(options: FilesSourceOptions<T>): Source<T> => filesSource(options) as Source<T>,
  /**
   * Writes files that appear complete and never change, exactly once: a file is published when a checkpoint commits it, or at the end of a bounded job.
   *
   * @throws OPTION_INVALID; SINK_NEVER_COMMITS at the start of an unbounded job without checkpoints; BUCKET_INVALID, DIRECTORY_UNWRITABLE in the job.
   * @example
   * import { readdir } from 'node:fs/promises';
   *
   * const orders = [{ day: '2030-01-31', total: 12 }, { day: '2030-02-01', total: 30 }];
   * await job('orders', (env) => {
   *   env.fromArray('orders', orders).sink('by-day', files.sink({ directory: 'by-day', bucket: (order) => `day=${order.day}` }));
   * }).run();
   * assert.deepEqual((await readdir('by-day')).filter((name) => !name.startsWith('.')).sort(), ['day=2030-01-31', 'day=2030-02-01']);
   */
  sink: <T>(options: FilesSinkOptions<T>): TransactionalSink<T> => filesSink(options) as TransactionalSink<T>,
};
