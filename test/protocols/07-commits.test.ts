import { describe, expect, it } from 'vitest';
import { TransactionalSinkRunner } from '../../src/runtime/transactional-sink.ts';
import { Coordinated } from '../checkpoint/coordinated.ts';
import { ANEW } from '../runtime/sink-options.ts';
import { rejection } from './lab.ts';

/** The writing side of one instance of a sink, whose store notes what is committed. */
function writer(marker = 0) {
  const commits: string[] = [];
  const sink = new TransactionalSinkRunner(
    {
      transactional: true,
      open: async () => ({
        commit: async (id: number, records: Iterable<unknown>) => void commits.push(`${id}: ${[...records].join(' ')}`),
        lastCommitted: async () => marker,
        close: async () => {},
      }),
    },
    0,
    ANEW,
  );
  return { sink, commits };
}

describe('protocols 7: commits go by the id of a checkpoint', () => {
  it('the completion of one commits what those before it have left too, oldest first: notices may get lost', async () => {
    const { sink, commits } = writer();
    await sink.open();
    for (const [id, record] of [
      [1, 'a'],
      [2, 'b'],
      [4, 'c'],
    ] as const) {
      sink.add(record, Number.NaN);
      sink.barrier(id);
    }
    sink.add('later', Number.NaN);
    // Those of 1 never come; 3 had no records.
    await sink.complete(3);
    expect(commits).toEqual(['1: a', '2: b']);
    await sink.complete(2);
    expect(commits).toEqual(['1: a', '2: b']);
    sink.barrier(5);
    await sink.complete(9);
    expect(commits).toEqual(['1: a', '2: b', '4: c', '5: later']);
  });

  it('what was recorded for a checkpoint that was aborted goes with the next that completes', async () => {
    const { sink, commits } = writer();
    await sink.open();
    sink.add('a', Number.NaN);
    sink.barrier(1);
    sink.add('b', Number.NaN);
    sink.barrier(2);
    await sink.complete(2);
    expect(commits).toEqual(['1: a', '2: b']);
  });

  it('a checkpoint that is committed in part, and was not restored, is refused as one that is committed as a whole', async () => {
    const opened = (lastBegun: number) =>
      new TransactionalSinkRunner(
        {
          transactional: true,
          open: async () => ({ commit: async () => {}, lastCommitted: async () => 6, lastBegun: async () => lastBegun, close: async () => {} }),
        },
        0,
        { ...ANEW, restoredId: 6, usedIds: { after: 0, to: 9 } },
      ).open();
    expect(await rejection(opened(7))).toMatchObject({ code: 'RESTORE_WOULD_DUPLICATE', retryable: false });
    await opened(6);
  });

  it('A: new records under an id that is not above the marker are refused, and not passed over as committed', async () => {
    const { sink, commits } = writer(9);
    await sink.open();
    sink.add('a', Number.NaN);
    const failure = await rejection((async () => sink.barrier(6))());
    expect(failure).toMatchObject({ code: 'COMMIT_ID_REUSED', uid: 'out' });
    expect(commits).toEqual([]);
  });
});

describe('protocols 7 C: barriers and acknowledgements of before and after', () => {
  it('an id is reserved durably before its first barrier leaves', async () => {
    const c = await Coordinated.start(['a']);
    let go = (): void => {};
    c.step = (name) => (name === 'checkpoint.reserve' ? new Promise((resolve) => (go = resolve)) : undefined);
    c.request('r');
    await c.settle();
    expect(c.news()).toEqual([]);
    go();
    await c.settle();
    expect(c.news()).toEqual(['a trigger 1']);
    expect(await c.registry.counter()).toBeGreaterThanOrEqual(1);
  });

  it('acknowledgements of the attempt before, for an id that was given up, count for no later one: no checkpoint has half of each cut', async () => {
    const c = await Coordinated.start(['a', 'b']);
    c.request('r');
    await c.settle();
    c.ack('a', 1);
    c.loses('a', 'b');
    await c.settle();
    expect(c.news()).toContain('failed 1 CHECKPOINT_FAILED');
    c.attempt = 2;
    c.opens('a', 'b');
    c.request('again');
    await c.settle();
    // The new id was never one of the old attempt's; what that says under it, or under its own, is dropped.
    for (const id of [1, 2]) for (const name of ['a', 'b']) c.ack(name, id, { attempt: 1 });
    await c.settle();
    expect(c.news()).toEqual(['a trigger 2']);
    c.ack('a', 2);
    c.ack('b', 2);
    await c.settle();
    expect(c.news()).toContain('completed 2');
  });
});
