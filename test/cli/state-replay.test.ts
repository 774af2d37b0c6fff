// What `millrace state replay` takes and prints: pure functions.

import { describe, expect, it } from 'vitest';
import type { Verdict } from '../../src/checkpoint/verify.ts';
import { jsonOf, limitOf, stepLines } from '../../src/cli/state-replay.ts';
import { verdictLines } from '../../src/cli/state-verify.ts';

describe('the limit of a replay', () => {
  it('is a number of records, or a time', () => {
    expect(limitOf('12')).toEqual({ records: 12 });
    expect(limitOf('@-5')).toEqual({ time: -5 });
    expect(limitOf('2026-01-31T12:00:00Z')).toEqual({ time: Date.UTC(2026, 0, 31, 12) });
  });

  it.each(['noon', '', '-3', '1.5', '2026-13-45'])('is refused where it is neither: %j', (text) => {
    expect(() => limitOf(text)).toThrow(expect.objectContaining({ code: 'OPTION_INVALID', todo: expect.stringMatching(/^Write a number of records/) }));
  });
});

const step = {
  step: 3,
  kind: 'record',
  input: 7n,
  side: 'right',
  timestamp: Number.NaN,
  watermark: Number.POSITIVE_INFINITY,
  before: { sum: 1, gone: [1] },
  after: { sum: 1, come: new Map([['a', 1]]) },
  outputs: [{ value: 1, timestamp: 5, output: 'late ones' }],
  timersSet: [{ at: 0, domain: 'event' }],
  timersDeleted: [{ at: 1, domain: 'processing' }],
  error: new Error('no more'),
};

describe('a step of a replay', () => {
  it('is printed with what has changed', () => {
    expect(stepLines(step)).toEqual([
      '#3 record right {"$bigint":"7"} (event time the end)',
      '   gone: [1] → –',
      '   come: – → {"$map":[["a",1]]}',
      '   timer deleted: processing 1970-01-01T00:00:00.001Z',
      '   timer set: event 1970-01-01T00:00:00.000Z',
      '   side "late ones": 1',
      '   failed: no more',
    ]);
  });

  it('is JSON without times that JSON has not', () => {
    expect(jsonOf(step)).toEqual({
      step: 3,
      kind: 'record',
      input: { $bigint: '7' },
      side: 'right',
      timestamp: null,
      watermark: null,
      before: { sum: 1, gone: [1] },
      after: { sum: 1, come: { $map: [['a', 1]] } },
      outputs: [{ value: 1, timestamp: 5, output: 'late ones' }],
      timersSet: [{ at: 0, domain: 'event' }],
      timersDeleted: [{ at: 1, domain: 'processing' }],
      error: 'no more',
    });
  });
});

describe('a verdict', () => {
  it('begins with what was done to the snapshot without a job', () => {
    const edits = [
      { at: 0, what: 'repartition: maxParallelism 128 → 4' },
      {
        at: 1000,
        what: "edit: 'a' changed: 1 rows written",
        by: 'ada@mill',
        tool: 'millrace 1',
        from: { id: 3, path: '/s/metadata', checksum: 'ff' },
        note: 'why',
      },
    ];
    const verdict: Verdict = { id: 3, job: 'j', maxParallelism: 4, takesOver: true, states: [], edits };
    expect(verdictLines('j', verdict)).toEqual([
      'edited 1970-01-01 00:00:00: repartition: maxParallelism 128 → 4',
      "edited 1970-01-01 00:00:01 by ada@mill with millrace 1: 'a' changed: 1 rows written",
      '  made of snapshot 3 in /s/metadata (SHA-256 ff)',
      '  note: why',
      "The job 'j' can take over snapshot 3.",
    ]);
  });
});
