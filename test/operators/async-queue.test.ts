import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { asyncQueue } from '../../src/operators/async-queue.ts';

interface Entry {
  readonly name: string;
}

/** `a` comes, `a!` is settled, `a?` is dropped, `|10` is a watermark; gives what left, in order. */
function play(ordered: boolean, script: string): { left: string; standing: string; size: number } {
  const queue = asyncQueue<Entry>(ordered);
  const entries = new Map<string, Entry>();
  const left: string[] = [];
  for (const word of script.split(' ')) {
    const name = word.slice(0, 1);
    if (name === '|') queue.time({ kind: 'watermark', time: Number(word.slice(1)) });
    else if (word.endsWith('!')) queue.settled(entries.get(name)!);
    else if (word.endsWith('?')) queue.dropped(entries.get(name)!);
    else {
      entries.set(name, { name });
      queue.add(entries.get(name)!);
    }
    for (let next = queue.next(); next !== undefined; next = queue.next())
      left.push('entry' in next ? next.entry.name : `|${(next.event as { time: number }).time}`);
  }
  return {
    left: left.join(' '),
    standing: queue
      .standing()
      .map((e) => e.name)
      .join(' '),
    size: queue.size,
  };
}

describe('the queue of asyncMap', () => {
  const table: [string, boolean, string, string][] = [
    ['ordered: results leave in the order of the records', true, 'a b c c! b! a!', 'a b c'],
    ['unordered: as they are settled', false, 'a b c c! b! a!', 'c b a'],
    ['ordered: a watermark waits for what came before it', true, 'a |10 a!', 'a |10'],
    ['unordered: a watermark waits for all that came before it', false, 'a b |10 b! a!', 'b a |10'],
    ['unordered: what came behind a watermark waits for it', false, 'a |10 b b! a!', 'a |10 b'],
    ['unordered: in the order settled, also behind a watermark', false, 'a |10 b c c! b! a!', 'a |10 c b'],
    ['ordered: the same', true, 'a |10 b c c! b! a!', 'a |10 b c'],
    ['of watermarks with nothing between them the newest is kept, ordered', true, 'a |10 |20 |30 b a!', 'a |30'],
    ['of watermarks with nothing between them the newest is kept, unordered', false, 'a |10 |20 |30 b a!', 'a |30'],
    ['of watermarks with a record between them both are kept', false, 'a |10 b |20 a! b!', 'a |10 b |20'],
    ['with nothing before it a watermark leaves at once', true, '|10 a |20', '|10'],
    ['ordered: one that is dropped holds nobody back', true, 'a b |10 b! a?', 'b |10'],
    ['unordered: one that is dropped holds nobody back', false, 'a |10 b b! a?', '|10 b'],
    ['ordered: one that is dropped behind another one is passed over', true, 'a b c b? c! a!', 'a c'],
  ];
  for (const [name, ordered, script, wanted] of table) it(name, () => expect(play(ordered, script).left).toBe(wanted));

  it('keeps for a snapshot what has not left and was not dropped, in order of arrival', () => {
    for (const ordered of [true, false]) expect(play(ordered, 'a b |10 c d b? d!')).toMatchObject({ standing: 'a c d' });
  });

  it('lets everything through once, whatever is settled when, with time between the same records', () => {
    fc.assert(
      fc.property(fc.boolean(), fc.array(fc.nat(4), { maxLength: 40 }), fc.infiniteStream(fc.nat()), (ordered, arrivals, picks) => {
        const queue = asyncQueue<Entry>(ordered);
        const open: Entry[] = [];
        const came: string[] = [];
        const left: string[] = [];
        const leave = (): void => {
          for (let next = queue.next(); next !== undefined; next = queue.next()) left.push('entry' in next ? next.entry.name : '|');
        };
        const settle = (): void => {
          const [entry] = open.splice(picks.next().value! % open.length, 1);
          queue.settled(entry!);
          leave();
        };
        arrivals.forEach((what, i) => {
          if (what === 0) {
            // One that replaces another is told apart from none.
            queue.time({ kind: i % 2 === 0 ? 'idle' : 'active' });
            came.push('|');
          } else {
            const entry = { name: `r${i}` };
            queue.add(entry);
            open.push(entry);
            came.push(entry.name);
          }
          leave();
          if (what > 2 && open.length > 0) settle();
        });
        while (open.length > 0) settle();
        const stretches = (all: string[]): string[][] =>
          all
            .join(' ')
            .split('|')
            .map((s) => (ordered ? s.trim().split(' ') : s.trim().split(' ').sort()));
        expect(stretches(left)).toEqual(stretches(came));
        expect(queue.empty).toBe(true);
        expect(queue.size).toBe(0);
      }),
    );
  });
});
