// LevelDB's MANIFEST: which tables a database consists of. Pure: bytes in, bytes out.
//
// What: a MANIFEST is a log of version edits: records in blocks of 32 KiB, each with a masked CRC-32C, each edit a list of tagged fields. Applied in order
// they give the tables that are alive. Only these are a database: a folder also has tables that a compaction has not finished or has not removed yet, and a copy
// that had an unfinished one would be truncated under the process that writes it (decision 15).
//
// Invariants:
//  M1  `readManifest` gives undefined where the last record is not whole: somebody is writing it, and it is to be read again.
//  M2  What `writeManifest` writes opens as a database of exactly these tables.

const BLOCK = 32_768;
const HEADER = 7;
const FULL = 1;
const FIRST = 2;
const MIDDLE = 3;
const LAST = 4;

/** Tags of the fields of an edit. */
const COMPARATOR = 1;
const LOG_NUMBER = 2;
const NEXT_FILE = 3;
const LAST_SEQUENCE = 4;
const COMPACT_POINTER = 5;
const DELETED_FILE = 6;
const NEW_FILE = 7;
const PREVIOUS_LOG = 9;

/** A table of a database; its keys are those of the database, with eight bytes of LevelDB's behind them. */
export interface LiveTable {
  readonly level: number;
  readonly number: number;
  readonly bytes: number;
  readonly smallest: Buffer;
  readonly largest: Buffer;
}

export interface Manifest {
  readonly comparator: string;
  /** Logs with smaller numbers are in tables. */
  readonly logNumber: number;
  readonly nextFile: number;
  readonly lastSequence: number;
  readonly tables: readonly LiveTable[];
}

/** `000123.ldb`. */
export function tableName(number: number): string {
  return `${String(number).padStart(6, '0')}.ldb`;
}

/** Undefined: its end is being written (M1). Throws where it is no MANIFEST, or damaged before its end. */
export function readManifest(bytes: Buffer): Manifest | undefined {
  const edits = records(bytes);
  if (edits === undefined || edits.length === 0) return undefined;
  const tables = new Map<number, LiveTable>();
  const numbers = { comparator: '', logNumber: 0, nextFile: 0, lastSequence: 0 };
  for (const edit of edits) apply(edit, tables, numbers);
  return { ...numbers, tables: [...tables.values()] };
}

function apply(edit: Buffer, tables: Map<number, LiveTable>, numbers: { comparator: string; logNumber: number; nextFile: number; lastSequence: number }): void {
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      if (at >= edit.length) throw new RangeError('A version edit ends within a number.');
      const byte = edit[at++]!;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
  };
  const slice = (): Buffer => {
    const length = varint();
    if (at + length > edit.length) throw new RangeError('A version edit ends within a name.');
    at += length;
    return edit.subarray(at - length, at);
  };
  while (at < edit.length) {
    const tag = varint();
    if (tag === COMPARATOR) numbers.comparator = slice().toString('latin1');
    else if (tag === LOG_NUMBER) numbers.logNumber = varint();
    else if (tag === NEXT_FILE) numbers.nextFile = varint();
    else if (tag === LAST_SEQUENCE) numbers.lastSequence = varint();
    else if (tag === PREVIOUS_LOG) varint();
    else if (tag === COMPACT_POINTER) {
      varint();
      slice();
    } else if (tag === DELETED_FILE) {
      // A table that only changes its level is deleted and added in one edit, in this order.
      varint();
      tables.delete(varint());
    } else if (tag === NEW_FILE) {
      const [level, number, size] = [varint(), varint(), varint()];
      tables.set(number, { level, number, bytes: size, smallest: Buffer.from(slice()), largest: Buffer.from(slice()) });
    } else throw new RangeError(`A version edit has a field of the unknown kind ${tag}.`);
  }
}

/** The records of a log, put together; undefined where the last one is not whole. */
function records(bytes: Buffer): Buffer[] | undefined {
  const out: Buffer[] = [];
  let begun: Buffer[] = [];
  for (let at = 0; at < bytes.length; ) {
    const left = BLOCK - (at % BLOCK);
    if (left < HEADER) {
      at += left;
      continue;
    }
    if (at + HEADER > bytes.length) return undefined;
    const length = bytes.readUInt16LE(at + 4);
    const end = at + HEADER + length;
    if (end > bytes.length) return undefined;
    const type = bytes[at + 6]!;
    if (masked(crc32c(bytes.subarray(at + 6, end))) !== bytes.readUInt32LE(at)) {
      if (end === bytes.length) return undefined;
      throw new RangeError(`A record of a MANIFEST is damaged, at byte ${at}.`);
    }
    const content = bytes.subarray(at + HEADER, end);
    if (type === FULL) out.push(content);
    else if (type === FIRST) begun = [content];
    else if (type === MIDDLE) begun.push(content);
    else if (type === LAST) {
      out.push(Buffer.concat([...begun, content]));
      begun = [];
    } else throw new RangeError(`A record of a MANIFEST is of the unknown kind ${type}, at byte ${at}.`);
    at = end;
  }
  return begun.length > 0 ? undefined : out;
}

/** One edit that says all. */
export function writeManifest({ comparator, logNumber, nextFile, lastSequence, tables }: Manifest): Buffer {
  const parts: Buffer[] = [];
  const varint = (value: number): void => {
    const digits: number[] = [];
    let rest = value;
    for (; rest > 0x7f; rest = Math.floor(rest / 128)) digits.push((rest % 128) | 0x80);
    digits.push(rest);
    parts.push(Buffer.from(digits));
  };
  const slice = (content: Buffer): void => {
    varint(content.length);
    parts.push(content);
  };
  varint(COMPARATOR);
  slice(Buffer.from(comparator, 'latin1'));
  for (const [tag, value] of [
    [LOG_NUMBER, logNumber],
    [NEXT_FILE, nextFile],
    [LAST_SEQUENCE, lastSequence],
  ] as const) {
    varint(tag);
    varint(value);
  }
  for (const { level, number, bytes, smallest, largest } of tables) {
    for (const value of [NEW_FILE, level, number, bytes]) varint(value);
    slice(smallest);
    slice(largest);
  }
  return logOf(Buffer.concat(parts));
}

/** A log of one record. */
function logOf(record: Buffer): Buffer {
  const out: Buffer[] = [];
  for (let at = 0; ; ) {
    const end = Math.min(record.length, at + BLOCK - HEADER);
    const type = at === 0 ? (end === record.length ? FULL : FIRST) : end === record.length ? LAST : MIDDLE;
    const piece = Buffer.concat([Buffer.alloc(HEADER), record.subarray(at, end)]);
    piece.writeUInt16LE(end - at, 4);
    piece[6] = type;
    piece.writeUInt32LE(masked(crc32c(piece.subarray(6))), 0);
    out.push(piece);
    if (end === record.length) return Buffer.concat(out);
    at = end;
  }
}

// ── CRC-32C, which zlib does not have ──

const CASTAGNOLI = Int32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ ((crc & 1) === 0 ? 0 : 0x82f63b78);
  return crc;
});

function crc32c(bytes: Uint8Array): number {
  let crc = -1;
  for (let i = 0; i < bytes.length; i++) crc = CASTAGNOLI[(crc ^ bytes[i]!) & 0xff]! ^ (crc >>> 8);
  return (crc ^ -1) >>> 0;
}

/** LevelDB stores sums so, since a sum over bytes that hold their own sum says little. */
function masked(crc: number): number {
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}
