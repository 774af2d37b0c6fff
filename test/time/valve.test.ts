import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Valve } from '../../src/time/valve.ts';

type Input = [channel: number, what: number | 'idle' | 'active'];

/** Plays inputs; gives for each what came out: a watermark, `idle`, `active`, in the order in which a task sends them. */
function play(channels: number, inputs: Input[], start?: number): string[] {
  const valve = new Valve(channels, start);
  return inputs.map(([channel, what]) => {
    const { watermark, idle } = what === 'idle' ? valve.idle(channel) : what === 'active' ? valve.active(channel) : valve.watermark(channel, what);
    return [idle === false ? 'active' : '', watermark === undefined ? '' : String(watermark), idle === true ? 'idle' : ''].filter((s) => s !== '').join(' ');
  });
}

describe('the watermark valve (semantics 4)', () => {
  const table: [string, number, Input[], string[]][] = [
    [
      'the output is the minimum, once every channel has one',
      2,
      [
        [0, 10],
        [1, 5],
        [1, 20],
        [0, 15],
      ],
      ['', '5', '10', '15'],
    ],
    [
      'it only grows',
      1,
      [
        [0, 10],
        [0, 7],
        [0, 10],
        [0, 11],
      ],
      ['10', '', '', '11'],
    ],
    [
      'a channel that turns idle leaves the minimum, which may advance',
      2,
      [
        [0, 10],
        [1, 5],
        [1, 'idle'],
      ],
      ['', '5', '10'],
    ],
    [
      'a channel without any watermark may be idle from the start',
      2,
      [
        [1, 'idle'],
        [0, 10],
      ],
      ['', '10'],
    ],
    [
      'a watermark of an idle channel is ignored',
      2,
      [
        [0, 10],
        [1, 'idle'],
        [1, 50],
        [0, 11],
      ],
      ['', '10', '', '11'],
    ],
    [
      'a channel that wakes below the output does not hold it back',
      2,
      [
        [0, 10],
        [1, 'idle'],
        [1, 'active'],
        [0, 20],
        [1, 15],
      ],
      ['', '10', '', '20', ''],
    ],
    [
      'it rejoins once it has reached the output',
      2,
      [
        [0, 10],
        [1, 'idle'],
        [1, 'active'],
        [1, 12],
        [0, 20],
        [1, 30],
      ],
      ['', '10', '', '', '12', '20'],
    ],
    [
      'when all are idle the largest is sent, then idle',
      2,
      [
        [0, 10],
        [1, 5],
        [0, 'idle'],
        [1, 'idle'],
      ],
      ['', '5', '', '10 idle'],
    ],
    [
      '… whichever went idle last (FLINK-40475)',
      2,
      [
        [0, 10],
        [1, 5],
        [1, 'idle'],
        [0, 'idle'],
      ],
      ['', '5', '10', 'idle'],
    ],
    [
      '… also where it is that of a channel that was not aligned (FLINK-40475)',
      2,
      [
        [0, 10],
        [1, 'idle'],
        [1, 'active'],
        [1, 7],
        [0, 'idle'],
        [1, 'idle'],
      ],
      ['', '10', '', '', '', 'idle'],
    ],
    [
      'the first channel that wakes makes it active',
      2,
      [
        [0, 10],
        [1, 10],
        [0, 'idle'],
        [1, 'idle'],
        [1, 'active'],
        [0, 'active'],
      ],
      ['', '10', '', 'idle', 'active', ''],
    ],
    [
      'on waking the minimum is derived again (FLINK-40475)',
      2,
      [
        [0, 10],
        [1, 5],
        [0, 'idle'],
        [1, 'idle'],
        [0, 'active'],
        [0, 12],
      ],
      ['', '5', '', '10 idle', 'active', '12'],
    ],
    [
      'all idle without any watermark is idle alone',
      2,
      [
        [0, 'idle'],
        [1, 'idle'],
      ],
      ['', 'idle'],
    ],
    [
      'idle twice, active twice say nothing more',
      1,
      [
        [0, 'idle'],
        [0, 'idle'],
        [0, 'active'],
        [0, 'active'],
      ],
      ['idle', '', 'active', ''],
    ],
    [
      'the end of input of all is +∞',
      2,
      [
        [0, Number.POSITIVE_INFINITY],
        [1, 5],
        [1, Number.POSITIVE_INFINITY],
      ],
      ['', '5', 'Infinity'],
    ],
    [
      'a channel that has ended does not hold the others back',
      2,
      [
        [0, 10],
        [0, Number.POSITIVE_INFINITY],
        [1, 50],
        [1, 60],
      ],
      ['', '', '50', '60'],
    ],
    [
      'that one has ended and the other is idle is not the end of time: the largest so far, then idle',
      2,
      [
        [0, 10],
        [1, 5],
        [0, Number.POSITIVE_INFINITY],
        [1, 'idle'],
        [1, 'active'],
        [1, 20],
        [1, Number.POSITIVE_INFINITY],
      ],
      ['', '5', '', '10 idle', 'active', '20', 'Infinity'],
    ],
    [
      'the same where the one that is left was idle before',
      2,
      [
        [0, 10],
        [1, 'idle'],
        [0, Number.POSITIVE_INFINITY],
        [1, 'active'],
        [1, 30],
      ],
      ['', '10', 'idle', 'active', '30'],
    ],
    [
      'the end of an idle channel is heard; the last end wakes the output',
      2,
      [
        [0, 10],
        [1, 5],
        [0, 'idle'],
        [1, 'idle'],
        [0, Number.POSITIVE_INFINITY],
        [1, Number.POSITIVE_INFINITY],
      ],
      ['', '5', '', '10 idle', '', 'active Infinity'],
    ],
    [
      'of three, two that have ended and one that is behind: it alone counts',
      3,
      [
        [0, Number.POSITIVE_INFINITY],
        [1, Number.POSITIVE_INFINITY],
        [2, 3],
        [2, 4],
        [2, Number.POSITIVE_INFINITY],
      ],
      ['', '', '3', '4', 'Infinity'],
    ],
    [
      'one that wakes while another, aligned, goes idle: the minimum is derived anew, and does not fall (FLINK-40475)',
      3,
      [
        [0, 10],
        [1, 20],
        [2, 30],
        [0, 'idle'],
        [1, 'idle'],
        [0, 'active'],
        [2, 'idle'],
        [0, 40],
      ],
      ['', '', '10', '20', '30', '', '', '40'],
    ],
    [
      'all idle, then two wake one after the other: active once, and the first to reach the output moves it (FLINK-40475)',
      2,
      [
        [0, 10],
        [1, 10],
        [0, 'idle'],
        [1, 'idle'],
        [0, 'active'],
        [1, 'active'],
        [0, 15],
        [1, 12],
      ],
      ['', '10', '', 'idle', 'active', '', '', '12'],
    ],
    [
      'the largest that an idle channel has said is not lost where another one, behind it, goes idle last (FLINK-40475)',
      3,
      [
        [0, 10],
        [1, 5],
        [2, 7],
        [0, 'idle'],
        [2, 'idle'],
        [1, 'idle'],
      ],
      ['', '', '5', '', '', '10 idle'],
    ],
  ];
  for (const [name, channels, inputs, wanted] of table) it(name, () => expect(play(channels, inputs)).toEqual(wanted));

  it('a restored one does not fall below where it was, and waits for all channels to pass it', () => {
    expect(
      play(
        2,
        [
          [0, 50],
          [1, 150],
          [0, 120],
        ],
        100,
      ),
    ).toEqual(['', '', '120']);
  });

  it('never falls, never stalls: once every channel is active and has passed t, the output has', () => {
    const inputs = fc.array(
      fc.tuple(
        fc.integer({ min: 0, max: 2 }),
        fc.oneof({ weight: 4, arbitrary: fc.integer({ min: 0, max: 50 }) }, fc.constantFrom<'idle' | 'active'>('idle', 'active')),
      ),
      { maxLength: 60 },
    );
    fc.assert(
      fc.property(inputs, (all) => {
        const valve = new Valve(3);
        let last = Number.NEGATIVE_INFINITY;
        let idle = false;
        const see = (out: { watermark: number | undefined; idle: boolean | undefined }): void => {
          if (out.watermark !== undefined) {
            expect(out.watermark).toBeGreaterThan(last);
            last = out.watermark;
          }
          if (out.idle !== undefined) {
            expect(out.idle).toBe(!idle);
            idle = out.idle;
          }
        };
        for (const [channel, what] of all)
          see(what === 'idle' ? valve.idle(channel) : what === 'active' ? valve.active(channel) : valve.watermark(channel, what));
        for (const channel of [0, 1, 2]) see(valve.active(channel));
        for (const channel of [0, 1, 2]) see(valve.watermark(channel, 100));
        expect(last).toBe(100);
        expect(idle).toBe(false);
        for (const channel of [0, 1, 2]) {
          expect(last).toBe(100);
          see(valve.watermark(channel, Number.POSITIVE_INFINITY));
        }
        expect(last).toBe(Number.POSITIVE_INFINITY);
        expect(idle).toBe(false);
      }),
    );
  });
});
