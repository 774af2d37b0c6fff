// The inputs of the workloads, made by formula: the same records on every machine, whatever their number.
//
//   hash(i)  murmur3's finalizer of the 32-bit integer i, unsigned
//   word i   word-<hash(i) mod keys>, ts = 1700000000000 + i
//   metric i host = 387·i mod 1000, tick = floor(i / 1000), ts = 1700000000000 + 10000·tick + hash(i) mod 1000, cpu = hash(2i) mod 10001,
//            mem = hash(2i + 1) mod 65536: 1000 hosts, each once in ten seconds
//
// A longer run repeats n records in passes: pass j adds j·n·10 to the metrics' ts, so that the stream goes on; words come again as they are.

export interface Word {
  type: 'word';
  word: string;
  ts: number;
}

export interface Metric {
  type: 'metric';
  host: string;
  cpu: number;
  mem: number;
  ts: number;
}

/** Records of one kind, held in memory; `again` makes a new object of one of them, as it is in a pass. */
export interface Input<T> {
  readonly records: number;
  make(i: number): T;
  again(record: T, pass: number): T;
}

const BASE = 1_700_000_000_000;

export function finalized(i: number): number {
  let h = i | 0;
  h ^= h >>> 16;
  h = Math.imul(h, 0x85ebca6b);
  h ^= h >>> 13;
  h = Math.imul(h, 0xc2b2ae35);
  h ^= h >>> 16;
  return h >>> 0;
}

export function words(records: number, keys: number): Input<Word> {
  return {
    records,
    make: (i) => ({ type: 'word', word: `word-${finalized(i) % keys}`, ts: BASE + i }),
    again: (record) => ({ type: record.type, word: record.word, ts: record.ts }),
  };
}

export function metrics(records: number): Input<Metric> {
  const names = Array.from({ length: 1000 }, (_, host) => `host-${String(host).padStart(4, '0')}`);
  return {
    records,
    make: (i) => ({
      type: 'metric',
      host: names[(387 * i) % 1000]!,
      cpu: finalized(2 * i) % 10_001,
      mem: finalized(2 * i + 1) % 65_536,
      ts: BASE + 10_000 * Math.floor(i / 1000) + (finalized(i) % 1000),
    }),
    again: (record, pass) => ({ type: record.type, host: record.host, cpu: record.cpu, mem: record.mem, ts: record.ts + pass * records * 10 }),
  };
}
