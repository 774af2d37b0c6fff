// Row files made row by row, and out of other ones: the rows that are wanted, in their order, tombstones included.

import { encodeInto } from './codec.ts';
import type { Key } from './contract.ts';
import { hashKey } from './keys.ts';
import { BlockWriter, FileEnd, fileStart, KEY_TOMBSTONE, RowFileReader, type RowKind, type TableHeader, VALUE, writeNamespace } from './row-file.ts';

/** The content of one row file, laid out by that many key groups. What is finished of it is taken piece by piece; the rest of it is in memory. */
export class RowFileWriter {
  readonly tables: readonly TableHeader[];
  private readonly blocks: BlockWriter;
  private readonly end = new FileEnd();
  private head: Uint8Array | undefined;

  constructor(tables: readonly TableHeader[], maxParallelism: number) {
    this.tables = tables;
    this.blocks = new BlockWriter({ maxParallelism, range: { from: 0, to: maxParallelism - 1 } });
    this.head = fileStart(tables, maxParallelism);
  }

  /** As a reader gives it: of timers `value` is the time. */
  row(table: number, kind: RowKind, key: Key, hash: number, ns: unknown, value: unknown): void {
    const { blocks } = this;
    const { layout } = this.tables[table]!;
    blocks.begin(table, kind, key, hash);
    if (kind !== KEY_TOMBSTONE) {
      writeNamespace(blocks.out, layout, ns);
      if (layout === 'timers') blocks.out.f64(value as number);
      else if (kind === VALUE) encodeInto(blocks.out, value);
    }
    blocks.end();
  }

  take(): Uint8Array[] {
    const taken: Uint8Array[] = this.head === undefined ? [] : [this.head];
    this.head = undefined;
    taken.push(...this.end.note(this.blocks.take()));
    return taken;
  }

  /** All that is left, and the end of the file. */
  finish(): Uint8Array[] {
    return [...this.take(), ...this.end.note(this.blocks.finish()), this.end.end()];
  }
}

/**
 * Streams: as much is in memory as a chunk of the file makes. Rejects as a reader does where the file is damaged. Its blocks are laid out by that many key
 * groups.
 *
 * @param renamed what a table is called from now on; undefined: it is left out. As before by default.
 */
export async function* rewritten(
  file: AsyncIterable<Uint8Array>,
  keep: (hash: number, table: TableHeader) => boolean,
  maxParallelism: number,
  renamed: (table: TableHeader) => TableHeader | undefined = (table) => table,
): AsyncIterable<Uint8Array> {
  let tables: readonly TableHeader[] = [];
  let numbers: readonly number[] = [];
  const out: RowFileWriter[] = [];
  const reader = new RowFileReader(
    (headers) => {
      const kept = headers.map(renamed);
      let next = 0;
      tables = headers;
      numbers = kept.map((table) => (table === undefined ? -1 : next++));
      out.push(
        new RowFileWriter(
          kept.filter((table) => table !== undefined),
          maxParallelism,
        ),
      );
    },
    (table, kind, key, ns, value) => {
      const hash = hashKey(key);
      if (numbers[table] !== -1 && keep(hash, tables[table]!)) out[0]!.row(numbers[table]!, kind, key, hash, ns, value);
    },
  );
  for await (const chunk of file) {
    reader.push(chunk);
    for (const writer of out) yield* writer.take();
  }
  reader.end();
  for (const writer of out) yield* writer.finish();
}
