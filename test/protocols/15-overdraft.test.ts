import { job } from 'millrace';
import { collect } from 'millrace/connectors';
import { describe, expect, it } from 'vitest';
import { rejection } from './lab.ts';

const MEGABYTE = 'x'.repeat(1 << 20);

/** One record in three becomes `many` values of a kilobyte each. */
const exploding = (many: number, out: unknown[], policy: 'restart' | 'skip', keyed: boolean) =>
  job('exploding', (env) => {
    const pieces = env
      .fromArray('in', [1, many, 1])
      .flatMap((n) => Array.from({ length: n }, (_, i) => ({ i, text: MEGABYTE.slice(0, 1024) + String(i) })))
      .onError(policy);
    if (keyed)
      pieces
        .keyBy((piece) => piece.i)
        .map((piece) => piece.i)
        .sink('out', collect(out));
    else pieces.map((piece) => piece.i).sink('out', collect(out));
  });

describe('protocols 15: a record that becomes more than a unit may hold', () => {
  it('a record that flattens into 600 results leaves as a whole, behind a batch of 512', async () => {
    const out: unknown[] = [];
    await exploding(600, out, 'restart', true).run();
    expect(out).toHaveLength(602);
  });

  it('fails with RECORD_TOO_LARGE, naming its operator, what to do, and how much it was', async () => {
    const error = await rejection(exploding(200_000, [], 'restart', true).run());
    expect(error).toMatchObject({ code: 'RECORD_TOO_LARGE', retryable: false, todo: expect.any(String) });
    expect(error.message).toMatch(/results of about \d+ MiB/);
  });

  it('under skip it is undone as a whole, and the records around it go on', async () => {
    const out: unknown[] = [];
    const result = await exploding(200_000, out, 'skip', true).run();
    expect(result.status).toBe('finished');
    expect(out).toEqual([0, 0]);
  });
});
