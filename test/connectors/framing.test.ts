import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { json, lineCodecOf, msgpack, text } from '../../src/connectors/formats.ts';
import { decodeFrames, decodeLines, Framer, frame, pieces, type Region } from '../../src/connectors/framing.ts';

const codec = lineCodecOf(text())!;
const never = (): never => {
  throw new Error('a record did not decode');
};
const lines = (region: Region): string[] => decodeLines(region.bytes, codec, codec.reader(undefined), never);

/** The bytes in blocks of the given lengths, over and over. */
function blocks(bytes: Buffer, lengths: readonly number[]): Buffer[] {
  const cut: Buffer[] = [];
  for (let at = 0, i = 0; at < bytes.length; i += 1) {
    const length = lengths[i % lengths.length]!;
    cut.push(bytes.subarray(at, at + length));
    at += length;
  }
  return cut;
}

function regionsOf(framer: Framer, cut: readonly Buffer[]): Region[] {
  return [...cut.map((block) => framer.push(block)), framer.rest()].filter((region) => region !== undefined);
}

const line = fc.string({ unit: 'binary' }).map((part) => part.replaceAll(/[\r\n]/g, ''));
const lengths = fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1 });

describe('lines', () => {
  it('are the same however the bytes were cut into blocks, and their offsets are where reading can resume', () => {
    fc.assert(
      fc.property(fc.array(line, { minLength: 1 }), lengths, fc.constantFrom('\n', '\r\n'), fc.boolean(), (all, cutLengths, end, ended) => {
        if (!ended && all.at(-1) === '') return;
        const bytes = Buffer.from(all.join(end) + (ended ? end : ''));
        const regions = regionsOf(new Framer(true, 0), blocks(bytes, cutLengths));
        expect(regions.flatMap(lines)).toEqual(all);
        for (const [i, { offset }] of regions.entries()) {
          const again = regionsOf(new Framer(true, offset), blocks(bytes.subarray(offset), cutLengths));
          expect(again.flatMap(lines)).toEqual(regions.slice(i + 1).flatMap(lines));
          expect(again.at(-1)?.offset ?? offset).toBe(bytes.length);
        }
      }),
      { seed: 11 },
    );
  });

  it('are handed over in pieces that end with a line, each with its own offset', () => {
    const bytes = Buffer.from('aa\nbbbbbbbbbb\nc\nd\n');
    const cut = [...pieces({ bytes, offset: 100 + bytes.length }, 4)];
    expect(cut.map((piece) => piece.bytes.toString())).toEqual(['aa\n', 'bbbbbbbbbb\n', 'c\nd\n']);
    expect(cut.map((piece) => piece.offset)).toEqual([103, 114, 118]);
  });

  it('that do not decode are given with their own bytes, and the others go on', () => {
    const bad: [string, string][] = [];
    const values = decodeLines(
      Buffer.from('1\r\nä?\n2\n\n?\n3'),
      lineCodecOf(json<number>())!,
      (part) => {
        if (part.endsWith('?')) throw new Error('no');
        return Number(part);
      },
      (bytes, error) => bad.push([Buffer.from(bytes).toString(), error.message]),
    );
    expect(values).toEqual([1, 2, 3]);
    expect(bad).toEqual([
      ['ä?', 'no'],
      ['?', 'no'],
    ]);
  });
});

describe('frames', () => {
  const format = msgpack<string>();

  it('are the same however the bytes were cut into blocks', () => {
    fc.assert(
      fc.property(fc.array(fc.string()), lengths, (all, cutLengths) => {
        const bytes = Buffer.concat(all.map((value) => frame(format.encode(value))));
        const regions = regionsOf(new Framer(false, 5), blocks(bytes, cutLengths));
        expect(regions.flatMap((region) => decodeFrames(region.bytes, format, never))).toEqual(all);
        expect(regions.at(-1)?.offset ?? 5).toBe(5 + bytes.length);
      }),
      { seed: 13 },
    );
  });

  it('give a record that was cut off as one that does not decode', () => {
    const framer = new Framer(false, 0);
    const whole = frame(format.encode('whole'));
    const bad: Uint8Array[] = [];
    const regions = regionsOf(framer, [Buffer.concat([whole, whole.subarray(0, 6)])]);
    expect(regions.flatMap((region) => decodeFrames(region.bytes, format, (bytes) => bad.push(bytes)))).toEqual(['whole']);
    expect(bad).toEqual([Uint8Array.from(whole.subarray(0, 6))]);
  });

  it('refuse a length that no record has', () => {
    expect(() => new Framer(false, 0).push(Buffer.from('this is text'))).toThrow(expect.objectContaining({ code: 'RECORD_TOO_LARGE' }));
  });
});
