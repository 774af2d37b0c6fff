import { describe, expect, it } from 'vitest';
import { endedBefore, endOf, resultOf } from '../../src/cluster/ends.ts';
import { differing, optionsFor, parallelismFor, storedOptions } from '../../src/cluster/led-job.ts';
import { MillraceError } from '../../src/errors.ts';
import type { RunOptions } from '../../src/graph/job.ts';

const job = { name: 'wc', run: 'r1' };
const stored = (end: object) => JSON.parse(JSON.stringify(end)) as ReturnType<typeof endOf>;

describe('how a job ended', () => {
  it('comes out of the store as it went in', () => {
    const result = { status: 'stopped', restarts: 2, checkpoint: { id: 4, path: '/c/4', bytes: 1, startedAt: 2, durationMs: 3 } } as const;
    expect(stored(endOf(job, 7, result))).toEqual({ job: 'wc', run: 'r1', at: 7, result });
    expect(resultOf(stored(endOf(job, 7, result)))).toEqual(result);
  });

  it('keeps of an error its code, sentence, operator and cause', () => {
    const error = new MillraceError('USER_FUNCTION_FAILED', 'It threw.', { uid: 'map', todo: 'Look.', cause: new TypeError('no n'), retryable: false });
    const end = stored(endOf(job, 7, error));
    let thrown: unknown;
    try {
      resultOf(end);
    } catch (caught) {
      thrown = caught;
    }
    expect(thrown).toMatchObject({
      code: 'USER_FUNCTION_FAILED',
      sentence: 'It threw.',
      uid: 'map',
      todo: 'Look.',
      retryable: false,
      cause: { message: 'no n' },
    });
    expect(thrown).toBeInstanceOf(MillraceError);
  });

  it('keeps the sentence of what a policy stopped it for', () => {
    const end = stored(endOf(job, 7, { status: 'stopped', restarts: 0, cause: new Error('poison') }));
    expect((resultOf(end).cause as Error).message).toBe('poison');
  });

  it.each([
    [undefined, undefined],
    ['running', undefined],
    ['finished', undefined],
    ['stopped', { status: 'stopped', restarts: 0, checkpoint: { id: 3 } }],
    ['cancelled', { status: 'cancelled', restarts: 0 }],
    ['failed', { code: 'RUNTIME_FAILED' }],
  ] as const)('before its leader died, where the registry says %s', (outcome, wanted) => {
    const newest = { id: 3, path: '', bytes: 0, startedAt: 0, durationMs: 0 };
    const over = endedBefore('wc', outcome, newest);
    if (wanted === undefined) expect(over).toBeUndefined();
    else expect(over).toMatchObject(wanted);
  });
});

describe('the options of a job in a cluster', () => {
  const own: RunOptions = { parallelism: 4, restore: 'none', checkpoints: { directory: '/shared', every: Number.POSITIVE_INFINITY } };
  const wanted = { options: storedOptions(own) };

  it('are stored as plain data', () => {
    expect(wanted.options).toEqual({ parallelism: 4, restore: 'none', checkpoints: { every: 'never' } });
  });

  it('are those of whoever leads; what it is restored from counts until it has begun', () => {
    const leads: RunOptions = { ...own, parallelism: 8, restore: { from: 'x' } };
    expect(optionsFor(wanted, leads, false)).toMatchObject({ parallelism: 8, restore: 'none' });
    expect(optionsFor(wanted, leads, true)).toMatchObject({ parallelism: 8, restore: 'latest' });
  });

  it('keep a rescale by hand, until a replica asks for another parallelism than the one that was rescaled', () => {
    const rescaled = { options: { ...wanted.options, rescaled: 6 } };
    expect(parallelismFor(rescaled, own)).toBe(6);
    expect(parallelismFor(rescaled, { ...own, parallelism: 5 })).toBe(5);
    expect(parallelismFor(wanted, own)).toBe(4);
  });

  it('differ by name', () => {
    expect(differing(wanted.options, own)).toEqual([]);
    expect(differing(wanted.options, { ...own, parallelism: 5, restore: 'latest', version: '2' })).toEqual(['parallelism', 'version']);
    expect(differing(wanted.options, { checkpoints: false })).toEqual(['checkpoints', 'parallelism']);
  });
});
