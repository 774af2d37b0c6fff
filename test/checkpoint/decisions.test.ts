import { s3 } from 'millrace/storage';
import { describe, expect, it } from 'vitest';
import {
  checkOptions,
  chooseRequest,
  failureCounts,
  isIntolerable,
  judgeAck,
  nextId,
  nextTrigger,
  remembered,
  superseded,
  triggerTargets,
  withFailure,
  withSuccess,
} from '../../src/checkpoint/decisions.ts';

describe('decisions of the coordinator (semantics 3)', () => {
  it('the next periodic checkpoint is due an interval after the last trigger, and not before the pause after the last completion', () => {
    const facts = (lastTrigger?: number, lastCompletion?: number) => ({ startedAt: 1000, lastTrigger, lastCompletion });
    expect(nextTrigger({ every: 100, minPause: 0 }, facts())).toBe(1100);
    expect(nextTrigger({ every: 100, minPause: 0 }, facts(1100, 1130))).toBe(1200);
    expect(nextTrigger({ every: 100, minPause: 0 }, facts(1100, 1450))).toBe(1450);
    expect(nextTrigger({ every: 100, minPause: 90 }, facts(1100, 1130))).toBe(1220);
    expect(nextTrigger({ every: 100, minPause: 90 }, facts(1100))).toBe(1200);
  });

  const task = (name: string, upstream: string[] = [], finished = false) => ({ name, upstream, finished });
  for (const [name, tasks, wanted] of [
    ['at the sources', [task('a'), task('b', ['a']), task('c', ['b'])], ['a']],
    ['at tasks whose every upstream has finished', [task('a', [], true), task('b', ['a']), task('c', ['b'])], ['b']],
    ['not at one with a running upstream beside', [task('a', [], true), task('a2'), task('b', ['a', 'a2'])], ['a2']],
    ['nowhere when all have finished', [task('a', [], true)], []],
  ] as const)
    it(`barriers start ${name}`, () => expect(triggerTargets(tasks)).toEqual(wanted));

  const pending = { id: 5, waiting: new Set(['a', 'b']), acked: new Set(['c']) };
  for (const [what, of, id, by, wanted] of [
    ['the first of two', pending, 5, 'a', 'waiting'],
    ['the last', { ...pending, waiting: new Set(['a']) }, 5, 'a', 'complete'],
    ['one that has come', pending, 5, 'c', 'duplicate'],
    ['one of a task that is not waited for', pending, 5, 'd', 'unknown'],
    ['one of another id', pending, 4, 'a', 'unknown'],
    ['one while none is pending', undefined, 5, 'a', 'unknown'],
  ] as const)
    it(`an acknowledgement, ${what}, is ${wanted}`, () => expect(judgeAck(of, id, by)).toBe(wanted));

  it('an acknowledgement for one that has ended is late, as long as its id is remembered', () => {
    let ended: readonly number[] = [];
    for (let id = 1; id <= 100; id++) ended = remembered(ended, id);
    expect(judgeAck(undefined, 100, 'a', ended)).toBe('late');
    expect(judgeAck({ ...pending, id: 101 }, 60, 'a', ended)).toBe('late');
    expect(judgeAck(undefined, 20, 'a', ended)).toBe('unknown');
    expect(judgeAck(undefined, 101, 'a', ended)).toBe('unknown');
  });

  const asked = { occupied: false, savepoints: 0, requests: 0, draining: false, allEnded: false };
  for (const [what, facts, wanted] of [
    ['nothing where nobody asks', {}, 'nothing'],
    ['nothing while one is pending, whoever asks', { occupied: true, savepoints: 1, requests: 1, allEnded: true }, 'nothing'],
    ['a savepoint before what users ask for', { savepoints: 1, requests: 1, allEnded: true }, 'savepoint'],
    ['what users ask for before the last one, which it is then', { requests: 2, allEnded: true }, 'requests'],
    ['the last one when all input has ended', { allEnded: true }, 'last'],
    ['nothing while a drain is on its way, no savepoint either', { draining: true, requests: 1, savepoints: 1 }, 'nothing'],
    ['the drained one when all input has ended, before savepoints', { draining: true, requests: 1, savepoints: 1, allEnded: true }, 'requests'],
  ] as const)
    it(`begins ${what}`, () => expect(chooseRequest({ ...asked, ...facts })).toBe(wanted));

  it('failures count by what failed, and of whom', () => {
    const kinds = ['not begun', 'declined', 'expired', 'not written', 'region lost'] as const;
    expect(kinds.map((kind) => failureCounts(kind, false))).toEqual([true, true, true, true, false]);
    expect(kinds.map((kind) => failureCounts(kind, true))).toEqual([false, true, false, false, false]);
  });

  it('failures are counted once an id, and a success takes back those of lower ids only', () => {
    let failed = withFailure(withFailure(withFailure(new Set(), 3), 3), 5);
    expect([isIntolerable(failed, 1), isIntolerable(failed, 2)]).toEqual([true, false]);
    failed = withSuccess(failed, 4);
    expect([...failed]).toEqual([5]);
    expect(isIntolerable(withSuccess(failed, 6), 0)).toBe(false);
  });

  for (const [name, good, bad] of [
    ['every', [1, 0.5, Number.POSITIVE_INFINITY], [0, -1, Number.NaN, '10s']],
    ['timeout', [1, Number.POSITIVE_INFINITY], [0, Number.NaN]],
    ['minPause', [0, 5], [-1, Number.POSITIVE_INFINITY, Number.NaN]],
    ['retain', [1, 10], [0, 1.5, -1, Number.POSITIVE_INFINITY]],
    ['tolerate', [0, 3, Number.POSITIVE_INFINITY], [-1, 0.5, Number.NaN]],
  ] as const)
    it(`refuses a ${name} that means nothing`, () => {
      for (const value of good) expect(() => checkOptions({ directory: 'd', [name]: value })).not.toThrow();
      for (const value of bad)
        expect(() => checkOptions({ directory: 'd', [name]: value })).toThrow(
          expect.objectContaining({ code: 'OPTION_INVALID', message: expect.stringContaining(name) }),
        );
    });

  it('a directory is a path, and a storage one of those there are', () => {
    for (const wrong of [{ directory: 's3://bucket/folder' }, { directory: '' }, { directory: 'd', storage: 's3://bucket' }, { directory: 'd', storage: null }])
      expect(() => checkOptions(wrong as Parameters<typeof checkOptions>[0])).toThrow(expect.objectContaining({ code: 'OPTION_INVALID' }));
    expect(() => checkOptions({ directory: 'd', storage: s3({ bucket: 'b' }) })).not.toThrow();
  });

  it('the oldest go beyond what is retained; the newest always stays', () => {
    expect(superseded([1, 2, 3, 4], 2)).toEqual([1, 2]);
    expect(superseded([1, 2], 3)).toEqual([]);
    expect(superseded([1, 2], 0)).toEqual([1]);
    expect(superseded([], 1)).toEqual([]);
  });

  it('the next id is above everything that any store has seen (protocols 7)', () => {
    const base = { counter: 0, registered: 0, restored: 0, markers: [], last: 0 };
    expect(nextId(base)).toBe(1);
    for (const more of [{ counter: 9 }, { registered: 9 }, { restored: 9 }, { markers: [3, 9, 4] }, { last: 9 }]) expect(nextId({ ...base, ...more })).toBe(10);
  });
});
