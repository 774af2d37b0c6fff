import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Alignment, type AlignmentAction, type Arrival, align, UNALIGNED } from '../../src/runtime/alignment.ts';

const barrier = (channel: number, id: number): Arrival => ({ kind: 'barrier', channel, id });
const cancel = (id: number): Arrival => ({ kind: 'cancel', id });
const end = (channel: number): Arrival => ({ kind: 'end', channel });
const trigger = (id: number): Arrival => ({ kind: 'trigger', id });
const hurry = (id: number): Arrival => ({ kind: 'hurry', id });
const entered = (channel: number, id: number): Arrival => ({ kind: 'barrier entered', channel, id });
const cancelEntered = (id: number): Arrival => ({ kind: 'cancel entered', id });
const endEntered = (channel: number): Arrival => ({ kind: 'end entered', channel });

/**
 * Short forms: b2 blocks channel 2, u unblocks, s7 takes snapshot 7, a7 aborts it; r7(1,2+) takes it and records channel 1 up to its barrier and 2 on and on, x2 ends
 * that, d7: all is recorded, -7: it is dropped.
 */
function short(action: AlignmentAction): string {
  switch (action.kind) {
    case 'block':
      return `b${action.channel}`;
    case 'unblock':
      return 'u';
    case 'snapshot':
      return `s${action.id}`;
    case 'abort':
      return `a${action.id}`;
    case 'record':
      return `r${action.id}(${[...action.channels].map((channel) => `${channel}${action.until.has(channel) ? '' : '+'}`).join()})`;
    case 'stop':
      return `x${action.channel}`;
    case 'recorded':
      return `d${action.id}`;
    case 'drop':
      return `-${action.id}`;
  }
}

/** Plays arrivals at a gate of `channels`; gives what each of them made happen. */
function play(channels: number, arrivals: Arrival[], blocking = true, forced: readonly number[] = []): string[] {
  let state: Alignment = UNALIGNED;
  const open = new Set(Array.from({ length: channels }, (_, i) => i));
  return arrivals.map((arrival) => {
    if (arrival.kind === 'end') open.delete(arrival.channel);
    const step = align(state, arrival, open, blocking, new Set(forced));
    state = step.state;
    return step.actions.map(short).join(' ');
  });
}

describe('alignment (semantics 1)', () => {
  const table: [string, number, Arrival[], string[]][] = [
    ['one channel is aligned by its barrier', 1, [barrier(0, 1), barrier(0, 2)], ['b0 s1 u', 'b0 s2 u']],
    ['a channel that delivered is blocked until all have', 3, [barrier(1, 5), barrier(0, 5), barrier(2, 5)], ['b1', 'b0', 'b2 s5 u']],
    ['a smaller id is dropped', 2, [barrier(0, 5), barrier(1, 5), barrier(0, 4)], ['b0', 'b1 s5 u', '']],
    ['the current id with none pending is dropped', 2, [barrier(0, 5), cancel(5), barrier(1, 5)], ['b0', 'u a5', '']],
    ['a larger id while one is pending aborts that first and unblocks', 2, [barrier(0, 5), barrier(1, 6), barrier(0, 6)], ['b0', 'a5 u b1', 'b0 s6 u']],
    ['a channel that ends counts as aligned', 2, [barrier(0, 5), end(1)], ['b0', 's5 u']],
    ['an end with nothing pending does nothing', 2, [end(0), barrier(1, 5)], ['', 'b1 s5 u']],
    ['channels that end one after another complete it with the last', 3, [barrier(0, 5), end(1), end(2)], ['b0', '', 's5 u']],
    ['a cancel marker before any barrier is remembered', 2, [cancel(5), barrier(0, 5), barrier(1, 5), barrier(0, 6)], ['a5', '', '', 'b0']],
    ['a cancel marker of a newer id ends the pending one', 2, [barrier(0, 5), cancel(6), barrier(1, 5), barrier(0, 6)], ['b0', 'u a6', '', '']],
    ['a cancel marker of an older id is dropped', 2, [barrier(0, 5), cancel(4), barrier(1, 5)], ['b0', '', 'b1 s5 u']],
    ['the second of two cancel markers does nothing', 2, [cancel(5), cancel(5)], ['a5', '']],
    ['a cancel marker after its snapshot does nothing', 1, [barrier(0, 5), cancel(5)], ['b0 s5 u', '']],
  ];
  for (const [name, channels, arrivals, wanted] of table) it(name, () => expect(play(channels, arrivals)).toEqual(wanted));

  it('at least once: counts and never blocks', () => {
    expect(play(2, [barrier(0, 5), barrier(1, 5)], false)).toEqual(['', 's5 u']);
  });

  it('takes a snapshot of rising ids, each once, and blocks no channel for ever, whatever arrives', () => {
    const arrivals = fc.array(
      fc.oneof(
        {
          weight: 6,
          arbitrary: fc.record({ kind: fc.constant('barrier' as const), channel: fc.integer({ min: 0, max: 2 }), id: fc.integer({ min: 1, max: 6 }) }),
        },
        { weight: 1, arbitrary: fc.record({ kind: fc.constant('cancel' as const), id: fc.integer({ min: 1, max: 6 }) }) },
        { weight: 1, arbitrary: fc.record({ kind: fc.constant('end' as const), channel: fc.integer({ min: 0, max: 2 }) }) },
      ),
      { maxLength: 40 },
    );
    fc.assert(
      fc.property(arrivals, (all) => {
        let state: Alignment = UNALIGNED;
        const open = new Set([0, 1, 2]);
        const blocked = new Set<number>();
        let last = 0;
        for (const arrival of all) {
          if (arrival.kind === 'end') {
            if (!open.delete(arrival.channel)) continue;
            blocked.delete(arrival.channel);
          }
          // A blocked or ended channel delivers nothing.
          if (arrival.kind === 'barrier' && (blocked.has(arrival.channel) || !open.has(arrival.channel))) continue;
          const step = align(state, arrival, open);
          state = step.state;
          for (const action of step.actions) {
            if (action.kind === 'block') blocked.add(action.channel);
            else if (action.kind === 'unblock') blocked.clear();
            else if (action.kind === 'snapshot') {
              expect(action.id).toBeGreaterThan(last);
              last = action.id;
            }
          }
          if (!state.pending) expect(blocked.size).toBe(0);
          else expect([...open].some((channel) => !blocked.has(channel))).toBe(true);
        }
      }),
    );
  });
});

describe('a barrier by mail (protocols 20)', () => {
  const table: [string, number, Arrival[], string[]][] = [
    ['stands behind the ends of all channels', 2, [trigger(5), end(0), end(1)], ['', '', 's5 u']],
    ['is taken at once where all have ended', 2, [end(0), end(1), trigger(5)], ['', '', 's5 u']],
    ['joins those that came by channels', 2, [barrier(0, 5), trigger(5), end(1)], ['b0', '', 's5 u']],
    ['of an id that is over does nothing', 1, [barrier(0, 5), trigger(5), trigger(4)], ['b0 s5 u', '', '']],
    ['of a larger id aborts the pending one', 2, [barrier(0, 5), trigger(6), end(0), end(1)], ['b0', 'a5 u', '', 's6 u']],
  ];
  for (const [name, channels, arrivals, wanted] of table) it(name, () => expect(play(channels, arrivals)).toEqual(wanted));
});

describe('unaligned (semantics 2)', () => {
  const table: [string, number, readonly number[], Arrival[], string[]][] = [
    ['nobody is waited for: all channels are recorded, up to the barrier where it has entered', 3, [], [entered(1, 5), hurry(5)], ['', 'r5(0+,1,2+) u']],
    [
      'a recording stops when its barrier enters, and is whole with the last',
      3,
      [],
      [entered(1, 5), hurry(5), entered(0, 5), entered(2, 5)],
      ['', 'r5(0+,1,2+) u', 'x0', 'x2 d5'],
    ],
    ['it is whole at once where all barriers have entered', 2, [], [entered(0, 5), entered(1, 5), hurry(5)], ['', '', 'r5(0,1) u d5']],
    [
      'a barrier that is taken from a queue afterwards does nothing',
      2,
      [],
      [entered(0, 5), entered(1, 5), hurry(5), barrier(0, 5), barrier(1, 5)],
      ['', '', 'r5(0,1) u d5', '', ''],
    ],
    [
      'a task that was aligning switches as a whole: what has delivered is not recorded',
      3,
      [],
      [entered(0, 5), barrier(0, 5), hurry(5)],
      ['', 'b0', 'r5(1+,2+) u'],
    ],
    [
      'one that is hurried when all but the last have delivered is aligned with the last',
      2,
      [1],
      [barrier(0, 5), hurry(5), barrier(1, 5)],
      ['b0', '', 'b1 s5 u'],
    ],
    ['a forced channel is waited for, the others are not', 3, [2], [entered(0, 5), hurry(5), barrier(2, 5)], ['', '', 'b2 r5(0,1+) u']],
    ['a forced channel that ends is waited for no more', 2, [1], [entered(0, 5), hurry(5), end(1)], ['', '', 'r5(0) u d5']],
    ['where all channels are forced it is aligned', 2, [0, 1], [hurry(5), barrier(0, 5), barrier(1, 5)], ['', 'b0', 'b1 s5 u']],
    ['the end of a channel ends its recording when it enters', 2, [], [entered(0, 5), hurry(5), endEntered(1), end(1)], ['', 'r5(0,1+) u', 'x1 d5', '']],
    ['a channel whose end has entered before is recorded as it stands', 2, [], [endEntered(1), entered(0, 5), hurry(5)], ['', '', 'r5(0,1+) u d5']],
    ['by mail: all that stands in front of the ends is recorded', 2, [], [endEntered(0), endEntered(1), hurry(5), trigger(5)], ['', '', 'r5(0+,1+) u d5', '']],
    ['a cancel marker drops the recording as it enters', 2, [], [entered(0, 5), hurry(5), cancelEntered(5), entered(1, 5)], ['', 'r5(0,1+) u', '-5', '']],
    ['one of an older id does not', 2, [], [entered(0, 5), hurry(5), cancelEntered(4), entered(1, 5)], ['', 'r5(0,1+) u', '', 'x1 d5']],
    [
      'a larger id drops it: no two are recorded at once',
      2,
      [],
      [entered(0, 5), hurry(5), entered(0, 6), hurry(6), entered(1, 6)],
      ['', 'r5(0,1+) u', '-5', 'r6(0,1+) u', 'x1 d6'],
    ],
    [
      'what is hurried when a larger id has entered is over: its own barriers may have gone by',
      2,
      [],
      [entered(1, 5), entered(1, 6), hurry(5), hurry(6), entered(0, 6)],
      ['', '', 'a5 u', 'r6(0+,1) u', 'x0 d6'],
    ],
    ['one that waits for a forced channel is over likewise', 2, [1], [entered(0, 5), hurry(5), entered(0, 6), barrier(1, 5)], ['', '', '', 'b1 a5 u']],
    ['a larger id that is hurried before it has entered anywhere drops what is recorded', 2, [], [hurry(5), hurry(6)], ['r5(0+,1+) u', '-5 r6(0+,1+) u']],
    ['what is hurried aborts an older one that is pending', 2, [], [barrier(0, 5), entered(1, 6), hurry(6)], ['b0', '', 'a5 u r6(0+,1) u']],
    ['what is over is not hurried', 2, [], [barrier(0, 5), barrier(1, 5), hurry(5), hurry(4)], ['b0', 'b1 s5 u', '', '']],
    ['nor what was cancelled', 2, [], [cancel(5), hurry(5)], ['a5', '']],
  ];
  for (const [name, channels, forced, arrivals, wanted] of table) it(name, () => expect(play(channels, arrivals, true, forced)).toEqual(wanted));

  it('records each channel from one snapshot to its own barrier, and leaves nothing open behind the last', () => {
    const ids = fc.array(
      fc.record({ channel: fc.integer({ min: 0, max: 2 }), act: fc.constantFrom('send', 'take', 'hurry', 'abort'), ahead: fc.integer({ min: 0, max: 1 }) }),
      { maxLength: 60 },
    );
    fc.assert(
      fc.property(ids, (all) => {
        let state: Alignment = UNALIGNED;
        const open = new Set([0, 1, 2]);
        const queues: number[][] = [[], [], []];
        const sent = [0, 0, 0];
        const blocked = new Set<number>();
        const recorded = new Set<number>();
        let whole = 0;
        const apply = (arrival: Arrival): void => {
          const step = align(state, arrival, open);
          state = step.state;
          for (const action of step.actions) {
            if (action.kind === 'block') blocked.add(action.channel);
            if (action.kind === 'unblock') blocked.clear();
            if (action.kind === 'record') for (const channel of action.channels) if (!action.until.has(channel)) recorded.add(channel);
            if (action.kind === 'stop') expect(recorded.delete(action.channel)).toBe(true);
            if (action.kind === 'drop') recorded.clear();
            if (action.kind === 'recorded') {
              expect(recorded.size).toBe(0);
              expect(action.id).toBeGreaterThan(whole);
              whole = action.id;
            }
          }
          expect(recorded).toEqual(new Set(state.recording?.channels));
        };
        for (const { channel, act, ahead } of all) {
          if (act === 'send') {
            sent[channel]! += 1;
            queues[channel]!.push(sent[channel]!);
            apply(entered(channel, sent[channel]!));
          } else if (act === 'take' && !blocked.has(channel) && queues[channel]!.length > 0) apply(barrier(channel, queues[channel]!.shift()!));
          else if (act === 'hurry') apply(hurry(sent[channel]! + ahead));
          else if (act === 'abort') apply(cancelEntered(sent[channel]!));
        }
        const newest = Math.max(...sent) + 2;
        for (const channel of open) apply(entered(channel, newest));
        apply(hurry(newest));
        expect(state.recording).toBeUndefined();
        expect(blocked.size).toBe(0);
      }),
    );
  });
});
