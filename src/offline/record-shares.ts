// Records that are fed into an operator offline, dealt out by the hash of their keys before it is known in how many shares its rows are worked on.
//
// Invariants:
//  D1  Records of a key stay in their order. They are drawn once.
//  D2  At most BUFFER_BYTES of them are in memory: what is more lies in a folder, encoded as rows are.

import { join } from 'node:path';
import { canonicalKey, decode, encode, hashKey, type Key } from '../../state-backends/index.ts';
import { MillraceError, messageOf } from '../errors.ts';
import type { Io } from '../runtime/io.ts';
import { SHARES_MAX, shareOf } from './row-shares.ts';

const BUFFER_BYTES = 32 << 20;

export interface FedRecord {
  readonly value: unknown;
  readonly key: Key;
  readonly hash: number;
  /** NaN: none. */
  readonly timestamp: number;
}

export interface RecordSharesOptions {
  readonly uid: string;
  readonly key: (value: unknown) => unknown;
  readonly timestamp: ((value: unknown) => number) | undefined;
  readonly io: Io;
  /** Makes an empty folder for what does not fit in memory. */
  readonly folder: () => Promise<string>;
  readonly bufferBytes?: number | undefined;
}

export class RecordShares {
  /** Of all records, encoded. */
  bytes = 0;
  records = 0;
  readonly #options: RecordSharesOptions;
  readonly #waiting: Uint8Array[][] = Array.from({ length: SHARES_MAX }, () => []);
  #waitingBytes = 0;
  #folder: string | undefined;

  static async of(records: Iterable<unknown> | AsyncIterable<unknown>, options: RecordSharesOptions): Promise<RecordShares> {
    const shares = new RecordShares(options);
    for await (const value of records) {
      shares.#add(value);
      if (shares.#waitingBytes > (options.bufferBytes ?? BUFFER_BYTES)) await shares.#spill();
    }
    if (shares.#folder !== undefined) await shares.#spill();
    return shares;
  }

  private constructor(options: RecordSharesOptions) {
    this.#options = options;
  }

  #add(value: unknown): void {
    const { uid, key: keyOf, timestamp: timestampOf } = this.#options;
    const { key, timestamp } = called(uid, () => ({ key: canonicalKey(keyOf(value)), timestamp: timestampOf?.(value) ?? Number.NaN }));
    const bytes = encode([value, key, timestamp]);
    this.#waiting[shareOf(hashKey(key), SHARES_MAX)]!.push(bytes);
    this.#waitingBytes += bytes.length;
    this.bytes += bytes.length;
    this.records += 1;
  }

  async #spill(): Promise<void> {
    const { io, folder } = this.#options;
    this.#folder ??= await folder();
    for (const [share, waiting] of this.#waiting.entries()) {
      if (waiting.length === 0) continue;
      const framed = waiting.splice(0).flatMap((bytes) => {
        const length = Buffer.allocUnsafe(4);
        length.writeUInt32LE(bytes.length);
        return [length, bytes];
      });
      await io.fs.appendFile(join(this.#folder, String(share)), Buffer.concat(framed));
    }
    this.#waitingBytes = 0;
  }

  /** The records of a share, where there are `shares` of them: a power of two. */
  async *of(share: number, shares: number): AsyncGenerator<FedRecord> {
    const each = SHARES_MAX / shares;
    for (let fine = share * each; fine < (share + 1) * each; fine++) {
      for (const bytes of this.#folder === undefined ? this.#waiting[fine]! : await this.#spilled(this.#folder, fine)) {
        const [value, key, timestamp] = decode(bytes) as [unknown, Key, number];
        yield { value, key, hash: hashKey(key), timestamp };
      }
    }
  }

  async #spilled(folder: string, share: number): Promise<Uint8Array[]> {
    let content: Buffer;
    try {
      content = await this.#options.io.fs.readFile(join(folder, String(share)));
    } catch (error) {
      if ((error as { code?: string }).code === 'ENOENT') return [];
      throw error;
    }
    const records: Uint8Array[] = [];
    for (let at = 0; at < content.length; ) {
      const length = content.readUInt32LE(at);
      records.push(content.subarray(at + 4, at + 4 + length));
      at += 4 + length;
    }
    return records;
  }
}

/** Runs code of the program; what it throws names the operator, and the key where one is known. */
export function called<R>(uid: string, run: () => R, key?: Key): R {
  try {
    return run();
  } catch (error) {
    throw failed(uid, error, key);
  }
}

export function failed(uid: string, error: unknown, key?: Key): unknown {
  // It says what to do itself.
  if (error instanceof MillraceError || (error as { name?: unknown }).name === 'StateError') return error;
  const on = key === undefined ? '' : ` on key ${typeof key === 'bigint' ? `${key}n` : JSON.stringify(key, (_, v) => (typeof v === 'bigint' ? `${v}n` : v))}`;
  return new MillraceError('USER_FUNCTION_FAILED', `'${uid}' failed${on}: ${messageOf(error)}.`, {
    uid,
    cause: error,
    retryable: false,
    todo: 'Mend the function; nothing was written.',
  });
}
