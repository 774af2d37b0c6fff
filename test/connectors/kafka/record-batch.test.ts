import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { OutgoingRecord } from '../../../src/connectors/kafka/client.ts';
import { type Codec, codecOf, compressed, decompressed } from '../../../src/connectors/kafka/compression.ts';
import { crc32c } from '../../../src/connectors/kafka/crc32c.ts';
import { bytesOf, decodeBatches, encodeBatch } from '../../../src/connectors/kafka/record-batch.ts';
import { codeOf } from '../../../src/errors.ts';

const WRITER = { producerId: 7n, epoch: 3, sequence: 0, transactional: false, codec: 0 as Codec };

function encode(records: readonly OutgoingRecord[], more: Partial<typeof WRITER> = {}, base = 0n): Buffer {
  const batch = encodeBatch(
    records,
    records.reduce((sum, record) => sum + bytesOf(record), 0),
    { ...WRITER, ...more },
  );
  // As the broker does; the checksum leaves it out.
  batch.writeBigInt64BE(base, 0);
  return batch;
}

function record(value: string, timestamp = 1000): OutgoingRecord {
  return { topic: 't', partition: 0, key: null, value: Buffer.from(value), timestamp };
}

/** Ends the transaction of producer 7; `commit` or abort. */
function control(base: bigint, commit: boolean): Buffer {
  const batch = encode([{ ...record(''), key: Buffer.from([0, 0, 0, commit ? 1 : 0]) }], { transactional: true }, base);
  batch.writeInt16BE(batch.readInt16BE(21) | 32, 21);
  batch.writeUInt32BE(crc32c(batch, 21, batch.length), 17);
  return batch;
}

const read = (bytes: Buffer, wanted = 0n, aborted: { producerId: bigint; firstOffset: bigint }[] = []) => decodeBatches(bytes, wanted, aborted, "'t' 0");
const values = (bytes: Buffer, wanted = 0n, aborted: { producerId: bigint; firstOffset: bigint }[] = []) =>
  read(bytes, wanted, aborted).records.map(({ value }) => String(value));

function codeThrown(run: () => unknown): unknown {
  try {
    run();
    return 'nothing';
  } catch (error) {
    return codeOf(error) ?? error;
  }
}

describe('CRC-32C', () => {
  it('is that of the standard', () => {
    expect(crc32c(Buffer.from('123456789'), 0, 9)).toBe(0xe3069283);
    expect(crc32c(Buffer.alloc(32), 0, 32)).toBe(0x8a9136aa);
    expect(crc32c(Buffer.from('x123456789x'), 1, 10)).toBe(0xe3069283);
  });
});

describe('a record batch', () => {
  const bytes = fc.option(fc.uint8Array({ maxLength: 300 }), { nil: null });
  const outgoing = fc.record({
    topic: fc.constant('t'),
    partition: fc.constant(0),
    key: bytes,
    value: bytes,
    timestamp: fc.integer({ min: 0, max: 2 ** 43 }),
    headers: fc.option(fc.dictionary(fc.string(), fc.uint8Array({ maxLength: 20 }), { maxKeys: 3 }), { nil: undefined }),
  });

  it('is read as it was written, whatever is in it, with each compression', () => {
    fc.assert(
      fc.property(fc.array(outgoing, { minLength: 1, maxLength: 20 }), fc.constantFrom<Codec>(0, 1, 2, 3), (records, codec) => {
        const { records: decoded, next } = read(encode(records, { codec }, 100n), 100n);
        expect(next).toBe(100n + BigInt(records.length));
        expect(decoded.length).toBe(records.length);
        records.forEach(({ key, value, timestamp, headers }, index) => {
          const got = decoded[index]!;
          expect([got.offset, got.timestamp]).toEqual([100n + BigInt(index), timestamp]);
          expect(got.key).toEqual(key === null ? null : Buffer.from(key));
          expect(got.value).toEqual(value === null ? null : Buffer.from(value));
          const named = Object.entries(headers ?? {}).map(([name, header]) => [name, Buffer.from(header)]);
          expect(Object.entries(got.headers)).toEqual(named);
        });
      }),
      { numRuns: 100, seed: 1 },
    );
  });

  it('is refused whole when one bit of it is another', () => {
    const batch = encode([record('one'), record('two')]);
    for (let at = 21; at < batch.length; at++) {
      const damaged = Buffer.from(batch);
      damaged[at]! ^= 1 << (at % 8);
      expect(codeThrown(() => read(damaged))).toBe('KAFKA_CORRUPT');
    }
  });

  it('that the answer has only a part of is left for the next fetch', () => {
    const [first, second] = [encode([record('a')], {}, 5n), encode([record('b')], {}, 6n)];
    for (let length = 0; length < second.length; length++) {
      const { records, next } = read(Buffer.concat([first, second.subarray(0, length)]), 5n);
      expect([records.length, next]).toEqual([1, 6n]);
    }
  });

  it('that nothing was left of by compaction is passed over', () => {
    const batch = encode([record('a'), record('b'), record('c')], {}, 10n);
    const empty = Buffer.from(batch.subarray(0, 61));
    empty.writeInt32BE(61 - 12, 8);
    empty.writeInt32BE(0, 57);
    empty.writeUInt32BE(crc32c(empty, 21, 61), 17);
    expect(read(empty, 10n)).toEqual({ records: [], next: 13n });
  });

  it('of an aborted transaction is passed over, up to its end and no further', () => {
    const log = Buffer.concat([
      encode([record('aborted')], { transactional: true }, 0n),
      encode([record('of another')], { transactional: true, producerId: 8n }, 1n),
      encode([record('in none')], {}, 2n),
      control(3n, false),
      encode([record('committed')], { transactional: true }, 4n),
      control(5n, true),
    ]);
    expect(values(log, 0n, [{ producerId: 7n, firstOffset: 0n }])).toEqual(['of another', 'in none', 'committed']);
    expect(read(log, 0n, [{ producerId: 7n, firstOffset: 0n }]).next).toBe(6n);
    // Asked for all, the broker names none.
    expect(values(log)).toEqual(['aborted', 'of another', 'in none', 'committed']);
  });

  it('of two aborted transactions of one producer, with a committed one between them, is the right one', () => {
    const log = Buffer.concat([
      encode([record('a')], { transactional: true }, 0n),
      control(1n, false),
      encode([record('b')], { transactional: true }, 2n),
      control(3n, true),
      encode([record('c')], { transactional: true }, 4n),
      control(5n, false),
    ]);
    const aborted = [4n, 0n].map((firstOffset) => ({ producerId: 7n, firstOffset }));
    expect(values(log, 0n, aborted)).toEqual(['b']);
  });

  it('of a format from before Kafka 0.11 is refused by name', () => {
    const old = encode([record('a')]);
    old[16] = 1;
    expect(codeThrown(() => read(old))).toBe('KAFKA_VERSION');
  });
});

describe('compression', () => {
  const plain = Buffer.concat([Buffer.from('to be or not to be, '.repeat(5000)), Buffer.from(Array.from({ length: 70_000 }, (_, i) => (i * i * 31) >>> 7))]);

  it.each([1, 2, 3] as const)('by codec %i makes repetition small, and gives it back', (codec) => {
    const packed = compressed(codec, plain);
    expect(packed.length).toBeLessThan(plain.length * 0.75);
    expect(decompressed(codec, packed, 'x').equals(plain)).toBe(true);
    expect(decompressed(codec, compressed(codec, Buffer.alloc(0)), 'x').length).toBe(0);
  });

  it.each([1, 2, 3] as const)('by codec %i that is damaged throws, or gives other bytes, and never hangs', (codec) => {
    const packed = compressed(codec, plain.subarray(0, 3000));
    for (let at = 0; at < packed.length; at += 7) {
      const damaged = Buffer.from(packed);
      damaged[at]! ^= 0x55;
      expect(['KAFKA_CORRUPT', 'nothing']).toContain(codeThrown(() => decompressed(codec, damaged, 'x')));
    }
    expect(codeThrown(() => decompressed(codec, packed.subarray(0, packed.length - 20), 'x'))).toBe('KAFKA_CORRUPT');
  });

  it('by snappy is read without the header that Java writes, too', () => {
    // Length 12, a literal of 4 bytes, a copy of 8 bytes from 4 before.
    expect(String(decompressed(2, Buffer.from([12, 3 << 2, 97, 98, 99, 100, (4 << 2) | 1, 4]), 'x'))).toBe('abcdabcdabcd');
  });

  it('by lz4 is a frame that other programs take', () => {
    expect(compressed(3, Buffer.alloc(0)).toString('hex')).toBe('04224d1860408200000000');
  });

  it('by zstd is used where Node has it, and named where it does not', async () => {
    const has = 'zstdCompressSync' in (await import('node:zlib'));
    expect(codeThrown(() => codecOf('zstd'))).toBe(has ? 'nothing' : 'KAFKA_COMPRESSION');
    if (has) expect(decompressed(4, compressed(4, plain), 'x').equals(plain)).toBe(true);
    else expect(codeThrown(() => decompressed(4, plain, 'x'))).toBe('KAFKA_COMPRESSION');
  });
});
