import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Alignment, type AlignmentAction, type Arrival, align, UNALIGNED } from '../../src/runtime/alignment.ts';

const barrier = (channel: number, id: number): Arrival => ({ kind: 'barrier', channel, id });
const cancel = (id: number): Arrival => ({ kind: 'cancel', id });
const end = (channel: number): Arrival => ({ kind: 'end', channel });

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
function play(channels: number, arrivals: Arrival[], blocking = true): string[] {
  let state: Alignment = UNALIGNED;
  const open = new Set(Array.from({ length: channels }, (_, i) => i));
  return arrivals.map((arrival) => {
    if (arrival.kind === 'end') open.delete(arrival.channel);
    const step = align(state, arrival, open, blocking);
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
