// A row file made of another one: the rows that are wanted, in their order, tombstones included.

import { encodeInto } from './codec.ts';
import { hashKey } from './keys.ts';
import { BlockWriter, FileEnd, fileStart, KEY_TOMBSTONE, RowFileReader, type TableHeader, VALUE, writeNamespace } from './row-file.ts';

/**
 * Streams: as much is in memory as a chunk of the file makes. Rejects as a reader does where the file is damaged. Its blocks are laid out by that many key
 * groups.
 */
export async function* rewritten(
  file: AsyncIterable<Uint8Array>,
  keep: (hash: number, table: TableHeader) => boolean,
  maxParallelism: number,
): AsyncIterable<Uint8Array> {
  const rows = new BlockWriter({ maxParallelism, range: { from: 0, to: maxParallelism - 1 } });
  const end = new FileEnd();
  let tables: readonly TableHeader[] = [];
  let head: Uint8Array | undefined;
  const reader = new RowFileReader(
    (headers) => {
      tables = headers;
      head = fileStart(headers, maxParallelism);
    },
    (table, kind, key, ns, value) => {
      const header = tables[table]!;
      const { layout } = header;
      const hash = hashKey(key);
      if (!keep(hash, header)) return;
      rows.begin(table, kind, key, hash);
      if (kind !== KEY_TOMBSTONE) {
        writeNamespace(rows.out, layout, ns);
        if (layout === 'timers') rows.out.f64(value as number);
        else if (kind === VALUE) encodeInto(rows.out, value);
      }
      rows.end();
    },
  );
  for await (const chunk of file) {
    reader.push(chunk);
    if (head !== undefined) yield head;
    head = undefined;
    yield* end.note(rows.take());
  }
  reader.end();
  yield* end.note(rows.finish());
  yield end.end();
}
