import { describe, expect, it } from 'vitest';
import { SILENT } from '../../src/graph/context.ts';
import { type Arrival, SourceReader } from '../../src/runtime/source-reader.ts';

/** Mail between two instances of a source, which a test hands over when it wants to. */
interface Mail {
  readonly kind: 'assign' | 'arrived';
  deliver(): void;
}

/** Two instances; `a` and `c` are dealt to instance 0, `b` to instance 1. */
async function dealt(): Promise<{ zero: SourceReader; one: SourceReader; mail: Mail[] }> {
  const mail: Mail[] = [];
  const readers: SourceReader[] = [];
  const metrics = { counter: () => ({ inc() {} }), gauge() {}, histogram: () => ({ record() {} }) };
  let done!: () => void;
  const all = new Promise<void>((resolve) => {
    done = resolve;
  });
  for (const subtask of [0, 1])
    readers.push(
      new SourceReader({
        source: {
          bounded: false,
          splits: async () => ['a', 'b', 'c'],
          splitId: String,
          read: () => ({ [Symbol.asyncIterator]: () => ({ next: () => new Promise<never>(() => {}) }) }),
        },
        strategy: undefined,
        group: undefined,
        wake: () => {},
        subtask,
        parallelism: 2,
        context: { uid: 'in', signal: new AbortController().signal, log: SILENT, metrics, parallelism: 2 },
        deadLetter: () => {},
        now: Date.now,
        post: (fn) => fn(),
        failed: (error) => {
          throw error;
        },
        assign: (instance, splits, last) => {
          if (instance === 0) readers[0]!.assigned(splits, last);
          else {
            mail.push({ kind: 'assign', deliver: () => readers[1]!.assigned(splits, last) });
            done();
          }
        },
        arrived: (arrival: Arrival) => void mail.push({ kind: 'arrived', deliver: () => readers[0]!.handedOver(arrival) }),
      }),
    );
  const [zero, one] = readers as [SourceReader, SourceReader];
  zero.start({ known: new Set(), ended: new Map(), counts: [0, 0] });
  one.start({ known: new Set(), ended: new Map(), counts: [0, 0] });
  await all;
  return { zero, one, mail };
}

const stored = (reader: SourceReader, id: number) => reader.snapshot(id).map((split) => [split.id, split.handed]);
const OWN = [
  ['a', undefined],
  ['c', undefined],
];
const HANDED = [...OWN, ['b', true]];
const HERE = [['b', undefined]];

describe('what has been dealt to another instance', () => {
  // A barrier that reached an instance before its share, and instance 0 after it had dealt: the split was in no snapshot, and the source decided anew where it begins.
  it('is in the snapshots of the one that dealt it, and not once the other has it in its own', async () => {
    const { zero, one, mail } = await dealt();
    expect([stored(zero, 1), stored(one, 1)]).toEqual([HANDED, []]);
    mail.shift()!.deliver();
    // It is there, and that is not known yet: it stands in both, and counts once.
    expect([stored(zero, 2), stored(one, 2)]).toEqual([HANDED, HERE]);
    mail.shift()!.deliver();
    expect([stored(zero, 3), stored(one, 3)]).toEqual([OWN, HERE]);
    expect(mail).toEqual([]);
    zero.close();
    one.close();
  });

  // The first checkpoint was aborted while the share was on its way, and the next one, triggered at once, had the split nowhere.
  it('is in every snapshot until its share has come, however many checkpoints are aborted meanwhile', async () => {
    const { zero, one, mail } = await dealt();
    for (const id of [1, 2, 5]) expect([stored(zero, id), stored(one, id)]).toEqual([HANDED, []]);
    for (const { deliver } of mail.splice(0)) deliver();
    for (const { deliver } of mail.splice(0)) deliver();
    expect([stored(zero, 6), stored(one, 6)]).toEqual([OWN, HERE]);
    zero.close();
    one.close();
  });

  it('is in a snapshot that the other instance took before its share came, though it is known to have come when this one takes it', async () => {
    const { zero, one, mail } = await dealt();
    expect(stored(one, 4)).toEqual([]);
    mail.shift()!.deliver();
    mail.shift()!.deliver();
    // A trigger that took its time.
    expect(stored(zero, 4)).toEqual(HANDED);
    expect([stored(zero, 5), stored(one, 5)]).toEqual([OWN, HERE]);
    zero.close();
    one.close();
  });
});
