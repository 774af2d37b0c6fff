import { describe, expect, it } from 'vitest';
import { Batch, releaseBatch, takeBatch } from '../../src/runtime/batch.ts';
import { type RecordedFile, Recording } from '../../src/runtime/in-flight.ts';
import { type LaneElement, readInFlight } from '../../src/runtime/in-flight-file.ts';
import { systemIo } from '../../src/runtime/io.ts';
import type { TimeEvent } from '../../src/runtime/operator.ts';
import { type RestoredLane, RestoredLanes } from '../../src/runtime/restored-lanes.ts';
import { hashKey } from '../../state-backends/index.ts';

const SILENT = { watermark: Number.NEGATIVE_INFINITY, idle: false };
const LANE = { address: 'sums left by key', stage: 0 };

function recording(wake = () => {}): Recording {
  return new Recording(7, 'sums', systemIo(), wake);
}
function keyed(...values: (number | string)[]): Batch {
  const batch = takeBatch(true);
  for (const value of values) batch.addKeyed({ value }, 10, value, hashKey(value));
  return batch;
}
async function* chunks(blocks: readonly Uint8Array[]): AsyncIterable<Uint8Array> {
  yield* blocks;
}
async function stored(of: Recording): Promise<LaneElement[][]> {
  of.seal();
  while (of.waits) of.encode(performance.now() + 1);
  const { blocks, lanes } = (await of.file) as RecordedFile;
  return readInFlight(chunks(blocks), 'in-flight', lanes.length, () => true);
}
function said(elements: readonly LaneElement[]): unknown[] {
  return elements.map((element) => ('kind' in element ? element : element.values.slice(0, element.size).map((v) => (v as { value: unknown }).value)));
}
const watermark = (time: number): TimeEvent => ({ kind: 'watermark', time });

describe('protocols 16 B: a batch that an unaligned checkpoint has captured', () => {
  it('is not overwritten by the next one: its arrays return to the pool once it is encoded, not when it is consumed', async () => {
    const one = recording();
    const batch = keyed('a', 'b');
    one.lane(LANE, SILENT).batch(batch, 0);
    releaseBatch(batch);
    const others = Array.from({ length: 70 }, () => keyed('x', 'y'));
    expect(others).not.toContain(batch);
    expect(said((await stored(one))[0]!)).toEqual([['a', 'b']]);
    expect(Array.from({ length: 70 }, () => takeBatch(true))).toContain(batch);
  });

  it('nor where its consumer is not through with it when it is encoded', async () => {
    const one = recording();
    const batch = keyed('a', 'b', 'c');
    one.lane(LANE, SILENT).batch(batch, 1);
    expect(said((await stored(one))[0]!)).toEqual([['b', 'c']]);
    expect(batch.size).toBe(3);
    releaseBatch(batch);
    expect(takeBatch(true)).toBe(batch);
  });

  it('returns to the pool where the recording is given up', async () => {
    const one = recording();
    const batch = keyed('a');
    one.lane(LANE, SILENT).batch(batch, 0);
    releaseBatch(batch);
    one.drop();
    expect(await one.file).toBeUndefined();
    expect(takeBatch(true)).toBe(batch);
  });

  it('is encoded with the key and the timestamp that it had, whatever they are', async () => {
    const one = recording();
    const batch = new Batch(true, 4);
    const keys = ['a\ud800', -1.5, 3n, Object.freeze(['x', 1])];
    for (const key of keys) batch.addKeyed(key, Number.NaN, key, hashKey(key));
    one.lane(LANE, SILENT).batch(batch, 0);
    const read = (await stored(one))[0]![0] as Batch;
    expect(read.keys.slice(0, 4)).toEqual(keys);
    expect([...read.hashes].slice(0, 4)).toEqual(keys.map(hashKey));
    expect([...read.timestamps].slice(0, 4)).toEqual([Number.NaN, Number.NaN, Number.NaN, Number.NaN]);
  });
});

describe('protocols 16 C: encoding what was in flight', () => {
  it('is done in slices: 100 channels with 1,024 records each take as many as the clock asks for', async () => {
    const one = recording();
    for (let channel = 0; channel < 100; channel++) {
      const lane = one.lane(LANE, SILENT);
      for (let n = 0; n < 2; n++) lane.batch(keyed(...Array.from({ length: 512 }, (_, i) => i)), 0);
    }
    one.seal();
    let slices = 0;
    // A clock that says each time that the slice is over.
    for (; one.waits; slices++) one.encode(Number.NEGATIVE_INFINITY);
    expect(slices).toBeGreaterThanOrEqual((100 * 1024) / 16 / 2);
    const { blocks, lanes } = (await one.file) as RecordedFile;
    expect(lanes.reduce((sum, lane) => sum + lane.records, 0)).toBe(102_400);
    const read = await readInFlight(chunks(blocks), 'in-flight', lanes.length, () => true);
    expect(read.map((elements) => elements.map((element) => (element as Batch).size))).toEqual(Array.from({ length: 100 }, () => [512, 512]));
  });

  it('begins with the first record: what enters later is encoded when it comes', async () => {
    let woken = 0;
    const one = recording(() => void woken++);
    const lane = one.lane(LANE, SILENT);
    expect(one.waits).toBe(false);
    lane.batch(keyed('a'), 0);
    expect([one.waits, woken]).toEqual([true, 1]);
    one.encode(Number.POSITIVE_INFINITY);
    expect(one.waits).toBe(false);
    lane.batch(keyed('b'), 0);
    expect([one.waits, woken]).toEqual([true, 2]);
    expect(said((await stored(one))[0]!)).toEqual([['a'], ['b']]);
  });

  it('says which record cannot be stored, and lets go of all', async () => {
    const one = recording();
    const batch = keyed('a');
    batch.addKeyed({ value: () => 1 }, 1, 'b', hashKey('b'));
    one.lane(LANE, SILENT).batch(batch, 0);
    one.encode(Number.POSITIVE_INFINITY);
    await expect(one.file).rejects.toMatchObject({ code: 'STATE_NOT_SERIALIZABLE', uid: 'sums' });
    expect([one.waits, batch.pins]).toEqual([false, 0]);
  });
});

describe('the file of what was in flight', () => {
  it('keeps event time between the records, and a batch whole that takes several frames', async () => {
    const one = recording();
    const large = new Batch(false, 512);
    for (let i = 0; i < 40; i++) large.add({ value: `${i}`.padEnd(10_000, 'x') }, i);
    const lane = one.lane({ address: undefined, stage: 0 }, { watermark: 5, idle: true });
    lane.event({ kind: 'active' });
    lane.batch(large, 3);
    lane.event(watermark(8));
    lane.event({ kind: 'end-of-data' });
    const [elements] = await stored(one);
    expect(elements!.filter((element) => 'kind' in element)).toEqual([watermark(5), { kind: 'idle' }, { kind: 'active' }, watermark(8)]);
    expect(elements!.filter((element) => !('kind' in element)).map((element) => (element as Batch).size)).toEqual([37]);
  });

  it('is none where nothing was in flight', async () => {
    const one = recording();
    one.lane(LANE, { watermark: 5, idle: false });
    one.seal();
    one.encode(Number.POSITIVE_INFINITY);
    expect(await one.file).toBe('nothing');
  });

  it('is refused where any of its bits is another, or any byte is missing', async () => {
    const one = recording();
    one.lane(LANE, { watermark: 5, idle: false }).batch(keyed('a', 2), 0);
    one.seal();
    one.encode(Number.POSITIVE_INFINITY);
    const bytes = Buffer.concat(((await one.file) as RecordedFile).blocks);
    const read = (content: Uint8Array) => readInFlight(chunks([content]), 'in-flight', 1, () => true);
    await read(bytes);
    for (let at = 0; at < bytes.length; at++) {
      const flipped = Buffer.from(bytes);
      flipped[at]! ^= 1 << (at % 8);
      await expect(read(flipped), `byte ${at}`).rejects.toMatchObject({ code: at === 4 ? 'SNAPSHOT_INCOMPATIBLE' : 'SNAPSHOT_CORRUPT' });
      await expect(read(bytes.subarray(0, at)), `${at} bytes`).rejects.toMatchObject({ code: 'SNAPSHOT_CORRUPT' });
    }
  });
});

describe('restored lanes', () => {
  const lane = (from: number, elements: readonly (Batch | TimeEvent)[], stage = 0): RestoredLane => ({ from, stage, address: 'a', right: false, elements });
  const one = (value: string): Batch => keyed(value);
  function play(lanes: readonly RestoredLane[], start = Number.NEGATIVE_INFINITY, moved = false): string {
    const restored = new RestoredLanes(lanes, start, moved);
    const out: unknown[] = [];
    for (let next = restored.next(); next !== undefined; next = restored.next()) out.push('watermark' in next ? next.watermark : said([next.batch]).flat()[0]);
    return out.join(' ');
  }

  const table: [string, string, string][] = [
    ['one lane is what it was', play([lane(0, [watermark(1), one('a'), watermark(2), one('b')])]), '1 a 2 b'],
    [
      'of two each record comes when the other has come as far',
      play([lane(0, [watermark(100), one('late'), watermark(120)]), lane(1, [watermark(50), one('a'), watermark(100), one('b'), watermark(120)])], 50),
      'a 100 late b 120',
    ],
    ['time is the least of all', play([lane(0, [watermark(3), one('a')]), lane(1, [watermark(1), one('b'), watermark(2)])]), '1 b 2 a'],
    ['an idle lane holds nobody back', play([lane(0, [watermark(1), { kind: 'idle' }]), lane(1, [watermark(1), one('a'), watermark(5), one('b')])]), '1 a 5 b'],
    [
      'nor one that has ended, and the end itself comes from upstream',
      play([lane(0, [watermark(Number.POSITIVE_INFINITY)]), lane(1, [watermark(4), one('a')])]),
      '4 a',
    ],
    [
      'stages of one instance follow one another, and hold time meanwhile',
      play([lane(0, [watermark(2), one('a')]), lane(0, [one('b'), watermark(9)], 1), lane(1, [watermark(7), one('c')])]),
      '2 a b 7 c',
    ],
    ['a stage without anything is passed over', play([lane(0, []), lane(0, [], 1), lane(0, [one('a')], 2)]), 'a'],
    ['where inputs have moved no time is heard', play([lane(0, [watermark(9), one('a')])], 3, true), 'a'],
  ];
  for (const [name, got, wanted] of table) it(name, () => expect(got).toBe(wanted));

  it('a snapshot that is taken meanwhile has what is left, and the rest of the batch in work', async () => {
    const lanes = [lane(0, [watermark(2), keyed('a', 'b', 'c'), one('d')]), lane(0, [one('e')], 1), lane(1, [watermark(4), one('f')])];
    const restored = new RestoredLanes(lanes, 0, false);
    expect([restored.next(), restored.next()].map((next) => next !== undefined && 'batch' in next)).toEqual([false, true]);
    const again = recording();
    const batch = lanes[0]!.elements[1] as Batch;
    expect(restored.record({ batch, at: 1 }, (next, heard) => again.lane(next, heard))).toBe(2);
    const read = await stored(again);
    expect(read.map(said)).toEqual([[watermark(2), ['b', 'c'], ['d']], [['e']], [watermark(4), ['f']]]);
  });
});
