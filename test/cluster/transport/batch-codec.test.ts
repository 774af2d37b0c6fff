import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { crc32 } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { FrameReader, FrameWriter } from '../../../src/cluster/transport/frame.ts';
import { FRAME_MAX } from '../../../src/cluster/transport/link.ts';
import { Batch, releaseBatch, takeBatch } from '../../../src/runtime/batch.ts';
import { canonicalKey } from '../../../state-backends/index.ts';
import { Random, rounds, SEED } from '../../random.ts';
import { batch, columns, EVENTS } from './values.ts';

function framesOf(sent: Batch, channel = 7, max = FRAME_MAX): Buffer[] {
  const frames: Buffer[] = [];
  new FrameWriter(max).batch(channel, sent, (frame) => void frames.push(Buffer.from(frame)));
  return frames;
}

function read(frame: Buffer): Batch {
  const reader = new FrameReader();
  reader.open(frame);
  expect(reader.channel).toBe(7);
  return reader.batch();
}

function of(...values: unknown[]): Batch {
  const out = new Batch(false, 512);
  for (const v of values) out.add(v, 0);
  return out;
}

describe('a batch', () => {
  it('arrives as it was, whatever it holds', () => {
    for (let round = 0; round < rounds(60); round++) {
      const seed = SEED + round;
      const sent = batch(new Random(seed));
      // Twice: what it is written as depends on what was seen before.
      const frames = [...framesOf(sent), ...framesOf(sent)];
      expect(frames.length, `seed ${seed}`).toBe(2);
      for (const frame of frames) expect(columns(read(frame)), `seed ${seed}`).toEqual(columns(sent));
    }
  });

  it('shares nothing with the bytes that it came in', () => {
    for (let round = 0; round < rounds(10); round++) {
      const sent = batch(new Random(SEED + round));
      const [frame] = framesOf(sent);
      const arrived = read(frame!);
      frame!.fill(0xff);
      expect(columns(arrived), `seed ${SEED + round}`).toEqual(columns(sent));
    }
  });

  it('comes in one of the pool, where nothing of what that held is left', () => {
    const used = takeBatch(false);
    for (let i = 0; i < 512; i++) used.add({ secret: i }, i);
    releaseBatch(used);
    const arrived = read(framesOf(of('one'))[0]!);
    expect(arrived.size).toBe(1);
    expect(arrived.values.filter((v) => v !== undefined)).toEqual(['one']);
  });

  it('with nothing in it arrives too', () => {
    expect(columns(read(framesOf(new Batch(true, 4))[0]!))).toEqual({ keyed: true, values: [], timestamps: [], keys: [], hashes: [] });
  });

  it('of more than a megabyte arrives as several, in order', () => {
    const sent = new Batch(true, 300);
    for (let i = 0; i < 300; i++) sent.addKeyed({ i, text: 'x'.repeat(i % 7 === 0 ? 60_000 : 10) }, i, `k${i}`, i);
    const frames = framesOf(sent);
    expect(frames.length).toBeGreaterThan(2);
    for (const frame of frames) expect(frame.length).toBeLessThan(1.2 * 2 ** 20);
    const arrived = frames.map((frame) => columns(read(frame)));
    expect(arrived.flatMap(({ values }) => values)).toEqual(columns(sent).values);
    expect(arrived.flatMap(({ keys }) => keys)).toEqual(columns(sent).keys);
    expect(arrived.flatMap(({ hashes, timestamps }) => hashes.map((h, i) => [h, timestamps[i]]))).toEqual(Array.from({ length: 300 }, (_, i) => [i, i]));
  });

  it('of more records than a frame has arrives as several', () => {
    const sent = new Batch(false, 70_000);
    for (let i = 0; i < 70_000; i++) sent.add(0, i);
    const arrived = framesOf(sent).map(read);
    expect(arrived.map(({ size }) => size)).toEqual([65_536, 70_000 - 65_536]);
    expect(arrived[1]!.timestamps[0]).toBe(65_536);
  });

  const FORMS: readonly [string, readonly unknown[]][] = [
    ['whole numbers', [5, 6, 300, 70_000, 2 ** 31, 2 ** 40]],
    ['small ones, also below nothing', [-128, 0, 127]],
    ['the largest that are whole', [2 ** 53 - 1, -(2 ** 53 - 1)]],
    ['numbers with −0 among them', [0, -0, 1]],
    ['numbers that are none', [1, Number.NaN, Number.POSITIVE_INFINITY]],
    ['a number and something else', [1, 'one', null]],
    ['truths', [true, false]],
    ['truths and something else', [true, undefined, 1n]],
    ['one word', ['same']],
    ['few words', ['a', 'b', '', 'the long word that is not short']],
    ['few words of other letters', ['é', '漢字', '\ud800', '😀', 'a']],
    ['nothing', [undefined]],
    ['nothing and null', [undefined, null]],
    ['dates', [new Date(5), new Date(6)]],
  ];
  for (const [what, all] of FORMS) {
    it(`of ${what} arrives as it was, as values, as a field and as keys`, () => {
      const at = (i: number): unknown => all[i % all.length];
      const sizes = [3, 8, 512, 600];
      for (const size of sizes) {
        const primitives = new Batch(false, size);
        const records = new Batch(true, size);
        const keyed = new Batch(true, size);
        for (let i = 0; i < size; i++) {
          const key = typeof at(i) === 'object' || at(i) === undefined ? i : canonicalKey(at(i));
          primitives.add(at(i), i);
          records.addKeyed({ other: i, one: at(i), two: `text ${i} ${'é'.repeat(i % 2)}` }, i % 2 === 0 ? Number.NaN : i, key, i);
          keyed.addKeyed({ other: 1 }, -0, key, -i);
        }
        for (const sent of [primitives, records, records, records, keyed, keyed]) expect(columns(read(framesOf(sent)[0]!))).toEqual(columns(sent));
      }
    });
  }

  it('arrives with its keys in order, whatever they are called', () => {
    const odd = Array.from({ length: 20 }, (_, i) => ({ b: i, 1: i, a: 'x', 'with "quotes" and \u2028': i, '': i, '\ud800': i, constructor: 1, toString: 2 }));
    const proto = Array.from({ length: 20 }, (_, i) => JSON.parse(`{"a":${i},"__proto__":{"x":1}}`) as object);
    const mixed = Array.from({ length: 20 }, (_, i) => (i % 2 === 0 ? { a: 1, b: 2 } : { b: 2, a: 1 }));
    for (const values of [odd, odd, odd, proto, proto, proto, mixed, mixed]) {
      const arrived = columns(read(framesOf(of(...values))[0]!)).values as object[];
      expect(arrived.map((v) => Object.entries(v))).toEqual(values.map((v) => Object.entries(v)));
      expect(arrived.every((v) => Object.getPrototypeOf(v) === Object.prototype)).toBe(true);
    }
  });

  for (const shapes of [2, 3, 16, 17]) {
    it(`of records of ${shapes} shapes arrives as it was`, () => {
      const random = new Random(SEED + shapes);
      // Each round one shape more is worth columns.
      for (let round = 0; round < shapes + 2; round++) {
        const sent = new Batch(true, 600);
        let shape = 0;
        for (let i = 0; i < 600; i++) {
          if (random.once(3)) shape = random.below(shapes);
          const fields = Array.from({ length: shape + 1 }, (_, k) => [`f${k}`, k % 2 === 0 ? i + k : `text ${i % 7}`]);
          sent.addKeyed(Object.fromEntries([['type', `t${shape}`], ...fields]), i, shape % 2 === 0 ? i : `k${i % 9}`, i);
        }
        for (const frame of framesOf(sent)) expect(columns(read(frame)), `round ${round}`).toEqual(columns(sent));
      }
    });
  }

  it('of records of few shapes takes little more than its columns', () => {
    const sent = new Batch(false, 512);
    for (let i = 0; i < 512; i++) sent.add(i % 16 === 0 ? { type: 'auction', id: i, seller: 5, category: 1 } : { type: 'bid', auction: i, price: 100 + i }, 0);
    for (let seen = 0; seen < 3; seen++) framesOf(sent);
    // Numbers of one or two bytes, a word a column, a run for each auction and for the bids behind it.
    expect(framesOf(sent)[0]!.length).toBeLessThan(512 * 5);
  });

  it('arrives as it was where a field of numbers has something else at last, and numbers again', () => {
    const of512 = (at: (i: number) => unknown): Batch => of(...Array.from({ length: 512 }, (_, i) => ({ widening: at(i), other: i })));
    const numbers = of512((i) => i);
    const others = [undefined, null, 'text', 1n, [1], -0].map((other) => of512((i) => (i === 400 ? other : i / 2)));
    for (const sent of [numbers, numbers, ...others, numbers]) expect(columns(read(framesOf(sent)[0]!))).toEqual(columns(sent));
  });

  it('arrives where a field is read by a function that says something else each time', () => {
    let calls = 0;
    const odd = Array.from({ length: 20 }, () => {
      const record = { plain: 1 };
      Object.defineProperty(record, 'odd', { enumerable: true, get: () => (calls++ % 2 === 0 ? 1 : 'one') });
      return record;
    });
    for (let round = 0; round < 3; round++) {
      const { values } = columns(read(framesOf(of(...odd))[0]!));
      for (const record of values) expect(record).toEqual({ plain: 1, odd: expect.toBeOneOf([1, 'one']) });
    }
  });

  it('has no part of a text that keeps the whole of the column alive', () => {
    const held: unknown[] = [];
    const long = new Batch(false, 512);
    for (let i = 0; i < 512; i++) long.add(`${i} ${'a long text '.repeat(40)}`, 0);
    const [frame] = framesOf(long);
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    collect();
    const before = process.memoryUsage().heapUsed;
    for (let i = 0; i < 100; i++) held.push(read(frame!).values[7]);
    collect();
    // 100 × 250 KiB would be held.
    expect(process.memoryUsage().heapUsed - before).toBeLessThan(8 << 20);
    expect(held.length).toBe(100);
  });

  it('with a record nested as deeply as can be stored arrives', () => {
    let deep: unknown = 1;
    for (let i = 0; i < 1000; i++) deep = [deep];
    expect(columns(read(framesOf(of(0, deep, 2))[0]!)).values).toEqual([0, deep, 2]);
  });

  class Account {
    total = 1;
  }
  const cycle: unknown[] = [];
  cycle.push(cycle);
  for (const [what, bad] of [
    ['a function', { f: () => 1 }],
    ['a symbol', Symbol('s')],
    ['an instance of a class', new Account()],
    ['a value within itself', cycle],
    ['a promise', Promise.resolve(1)],
    ['a WeakMap', new WeakMap()],
  ] as const) {
    it(`that holds ${what} is refused, and the record is named`, () => {
      const frames: Buffer[] = [];
      const writer = new FrameWriter(FRAME_MAX);
      const send = (frame: Buffer) => void frames.push(Buffer.from(frame));
      expect(() => writer.batch(7, of(1, 2, bad, 4), send)).toThrow(
        expect.objectContaining({ index: 2, cause: expect.objectContaining({ code: 'STATE_NOT_SERIALIZABLE' }) }),
      );
      expect(frames).toEqual([]);
      // The writer is as it was.
      writer.batch(7, of(1, 2), send);
      expect(columns(read(frames[0]!)).values).toEqual([1, 2]);
    });
  }

  it('with a record larger than a frame is refused, and the record is named', () => {
    expect(() => framesOf(of('a', 'b'.repeat(2 << 20), 'c'), 7, 1 << 20)).toThrow(
      expect.objectContaining({ index: 1, cause: expect.objectContaining({ code: 'RECORD_TOO_LARGE' }) }),
    );
  });
});

describe('a frame within a process', () => {
  it('has no checksum, and arrives as it was', () => {
    const frames: Buffer[] = [];
    const sent = of(1, 'two', null);
    new FrameWriter(FRAME_MAX, true).batch(7, sent, (frame) => void frames.push(Buffer.from(frame)));
    expect(frames[0]!.readUInt32LE(0)).toBe(0);
    const reader = new FrameReader(true);
    reader.open(frames[0]!);
    expect(columns(reader.batch())).toEqual(columns(sent));
    expect(() => read(frames[0]!)).toThrow(expect.objectContaining({ code: 'LINK_CORRUPT' }));
  });
});

describe('an event', () => {
  for (const event of EVENTS) {
    it(`arrives as it was: ${JSON.stringify(event)}`, () => {
      const reader = new FrameReader();
      reader.open(new FrameWriter(FRAME_MAX).event(9, event));
      expect([reader.channel, reader.event()]).toEqual([9, event]);
    });
  }
});

describe('a frame', () => {
  const refused = (frame: Buffer, about: string) =>
    expect(() => {
      const reader = new FrameReader();
      reader.open(frame);
      reader.batch();
    }, about).toThrow(expect.objectContaining({ code: 'LINK_CORRUPT' }));

  it('with any bit turned is refused', () => {
    const random = new Random(SEED);
    for (let round = 0; round < rounds(2); round++) {
      const [frame] = framesOf(batch(random, 5));
      for (let bit = 0; bit < frame!.length * 8; bit++) {
        frame![bit >> 3]! ^= 1 << (bit & 7);
        const reader = new FrameReader();
        let refusal: unknown;
        try {
          reader.open(frame!);
        } catch (error) {
          refusal = (error as { code?: unknown }).code;
        }
        if (refusal !== 'LINK_CORRUPT') expect.fail(`seed ${SEED}: bit ${bit} turned, and ${String(refusal)}`);
        frame![bit >> 3]! ^= 1 << (bit & 7);
      }
    }
  });

  it('that is cut off or goes on is refused', () => {
    const [frame] = framesOf(batch(new Random(SEED), 20));
    for (let length = 0; length < frame!.length; length++) refused(frame!.subarray(0, length), `${length} bytes`);
    refused(Buffer.concat([frame!, Buffer.alloc(1)]), 'one more');
  });

  it('whose checksum is right and whose content was changed is a batch or refused, and nothing large is made for it', () => {
    const random = new Random(SEED);
    const mixed = of(...Array.from({ length: 40 }, (_, i) => (i % 5 === 0 ? { a: i, b: 'b' } : i % 7 === 0 ? { c: null } : { a: i })));
    for (let round = 0; round < rounds(300); round++) {
      const sent = round % 3 === 0 ? mixed : batch(random, 20);
      framesOf(sent);
      const [forged] = framesOf(sent);
      for (let n = random.between(1, 3); n > 0; n--) forged![random.between(9, forged!.length - 1)] = random.of([0, 1, 0x7f, 0x80, 0xff, random.below(256)]);
      forged!.writeUInt32LE(crc32(forged!.subarray(4)), 0);
      const reader = new FrameReader();
      try {
        reader.open(forged!);
        expect(reader.batch().size).toBeLessThanOrEqual(1 << 16);
      } catch (error) {
        expect(error, `seed ${SEED}, round ${round}`).toMatchObject({ code: 'LINK_CORRUPT' });
      }
    }
  });

  it('whose checksum is right and whose content is none is refused, and nothing large is made for it', () => {
    const writer = new FrameWriter(FRAME_MAX);
    // What is none is sent under the name of a batch: mails are values of any form.
    const random = new Random(SEED);
    for (let round = 0; round < rounds(300); round++) {
      const forged = Buffer.from(writer.mail(Buffer.from(Array.from({ length: random.below(40) }, () => random.below(256)))));
      forged[4] = 1;
      forged.writeUInt32LE(crc32(forged.subarray(4)), 0);
      refused(forged, `seed ${SEED}, round ${round}`);
    }
  });
});
