// A row file made of another one: the rows that are wanted, in their order, tombstones included.

import { encodeInto } from './codec.ts';
import { hashKey } from './keys.ts';
import { BlockWriter, fileEnd, fileStart, KEY_TOMBSTONE, RowFileReader, type TableHeader, VALUE, writeNamespace } from './row-file.ts';

/** Streams: as much is in memory as a chunk of the file makes. Rejects as a reader does where the file is damaged. */
export async function* rewritten(file: AsyncIterable<Uint8Array>, keep: (hash: number, table: TableHeader) => boolean): AsyncIterable<Uint8Array> {
  const rows = new BlockWriter();
  let tables: readonly TableHeader[] = [];
  let head: Uint8Array | undefined;
  const reader = new RowFileReader(
    (headers) => {
      tables = headers;
      head = fileStart(headers);
    },
    (table, kind, key, ns, value) => {
      const header = tables[table]!;
      const { layout } = header;
      if (!keep(hashKey(key), header)) return;
      rows.begin(table, kind, key);
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
    yield* rows.take();
  }
  reader.end();
  yield* rows.finish();
  yield fileEnd(rows.rows, rows.blocks);
}
