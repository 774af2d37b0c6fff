import { describe, expect, it } from 'vitest';
import { type OutOfRange, outOfRange, recreated } from '../../../src/connectors/kafka/offset-loss.ts';

const facts: OutOfRange = { topic: 't', partition: 3, wanted: 50n, earliest: 100n, latest: 200n, fromEarliest: false, times: 2, policy: 'fail' };

describe('an offset that is out of range', () => {
  it('before the first record fails, and the error names topic, partition, what was wanted and what is there', () => {
    const decision = outOfRange(facts);
    expect(decision).toMatchObject({ kind: 'fail', error: { code: 'KAFKA_OFFSET_LOST', retryable: false } });
    expect((decision as { error: Error }).error.message).toMatch(/Partition 3 of 't' was to be read from offset 50 and holds 100 to 200: .*deleted/);
  });

  it('behind the last record fails too: a log that was cut off is no reason to begin anew', () => {
    const decision = outOfRange({ ...facts, wanted: 201n });
    expect(decision).toMatchObject({ kind: 'fail', error: { code: 'KAFKA_OFFSET_LOST' } });
    expect((decision as { error: Error }).error.message).toMatch(/its log ends before it/);
  });

  it('goes on where the policy says, and says what was lost', () => {
    expect(outOfRange({ ...facts, policy: 'earliest' })).toMatchObject({ kind: 'go on', offset: 100n, lost: expect.stringContaining('from offset 50') });
    expect(outOfRange({ ...facts, policy: 'latest' })).toMatchObject({ kind: 'go on', offset: 200n });
    expect(outOfRange({ ...facts, wanted: 300n, policy: 'earliest' })).toMatchObject({ kind: 'go on', offset: 100n });
  });

  it('is believed at the second time only, whatever the policy', () => {
    for (const policy of ['fail', 'earliest', 'latest'] as const) expect(outOfRange({ ...facts, times: 1, policy })).toEqual({ kind: 'again' });
  });

  it('is asked for again where the partition holds it: the broker did not know its log whole', () => {
    for (const wanted of [100n, 150n, 200n]) expect(outOfRange({ ...facts, wanted, times: 9 })).toEqual({ kind: 'again' });
  });

  it('is no loss for a split that begins at the earliest record and has read nothing', () => {
    expect(outOfRange({ ...facts, wanted: 0n, fromEarliest: true, times: 1 })).toEqual({ kind: 'go on', offset: 100n, lost: undefined });
  });
});

describe('a topic with another id', () => {
  const other = { topic: 't', partition: 0, offset: 7n, was: 'a', is: 'b' };

  it('fails by default, and names both ids', () => {
    expect(recreated({ ...other, policy: 'fail' })).toMatchObject({
      kind: 'fail',
      error: { code: 'TOPIC_RECREATED', message: expect.stringContaining('topic id a, and b') },
    });
  });

  it('is read from its beginning or its end where the policy says so', () => {
    expect(recreated({ ...other, policy: 'earliest' })).toMatchObject({ kind: 'go on', at: 'earliest' });
    expect(recreated({ ...other, policy: 'latest' })).toMatchObject({ kind: 'go on', at: 'stable' });
  });
});
