// Compression of record batches, by the number that stands in their attributes.
//
// gzip and zstd are Node's (zstd from 22.15 on); snappy and lz4 are ours (snappy.ts, lz4.ts), since no package for them is both pure JavaScript and kept.
//
// Invariant: bytes that are damaged, or would become more than LIMIT, throw KAFKA_CORRUPT; a codec that this Node lacks KAFKA_COMPRESSION.

import * as zlib from 'node:zlib';
import { MillraceError, messageOf } from '../../errors.ts';
import type { Compression } from './client.ts';
import { KafkaError } from './errors.ts';
import { lz4Compressed, lz4Decompressed } from './lz4.ts';
import { snappyCompressed, snappyDecompressed } from './snappy.ts';

/** 0: not compressed. */
export type Codec = 0 | 1 | 2 | 3 | 4;

const CODECS: Readonly<Record<Compression, Codec>> = { gzip: 1, snappy: 2, lz4: 3, zstd: 4 };
/** What a batch may unpack to. */
const LIMIT = 1 << 29;

/** As far as the Node version has it. */
interface Zstd {
  zstdCompressSync(bytes: Uint8Array): Buffer;
  zstdDecompressSync(bytes: Uint8Array, options: { maxOutputLength: number }): Buffer;
}

/** Throws OPTION_INVALID or KAFKA_COMPRESSION: before the first record, not at it. */
export function codecOf(compression: Compression | undefined): Codec {
  if (compression === undefined) return 0;
  const codec = CODECS[compression];
  if (codec === undefined)
    throw new MillraceError('OPTION_INVALID', `There is no compression '${String(compression)}'.`, { todo: 'It is gzip, snappy, lz4 or zstd.' });
  if (codec === 4) zstd('written');
  return codec;
}

export function compressed(codec: Codec, bytes: Buffer): Buffer {
  switch (codec) {
    case 0:
      return bytes;
    case 1:
      return zlib.gzipSync(bytes);
    case 2:
      return snappyCompressed(bytes);
    case 3:
      return lz4Compressed(bytes);
    case 4:
      return zstd('written').zstdCompressSync(bytes);
  }
}

/** `place` names the partition in errors. */
export function decompressed(codec: Codec, bytes: Buffer, place: string): Buffer {
  try {
    switch (codec) {
      case 0:
        return bytes;
      case 1:
        return zlib.gunzipSync(bytes, { maxOutputLength: LIMIT });
      case 2:
        return snappyDecompressed(bytes, LIMIT);
      case 3:
        return lz4Decompressed(bytes, LIMIT);
      case 4:
        return zstd(`read in ${place}`).zstdDecompressSync(bytes, { maxOutputLength: LIMIT });
      default:
        throw new KafkaError('KAFKA_COMPRESSION', `A batch of ${place} is compressed in a way (${String(codec)}) that is not known.`, {});
    }
  } catch (error) {
    if (error instanceof MillraceError) throw error;
    throw new KafkaError('KAFKA_CORRUPT', `A batch of ${place} does not unpack: ${messageOf(error)}.`, { cause: error, again: 'later' });
  }
}

function zstd(where: string): Zstd {
  const { zstdCompressSync } = zlib as Partial<Zstd>;
  if (zstdCompressSync !== undefined) return zlib as unknown as Zstd;
  throw new KafkaError('KAFKA_COMPRESSION', `zstd cannot be ${where}: Node ${process.versions.node} does not have it.`, { todo: 'Use Node 22.15 or newer.' });
}
