import { expect, it } from 'vitest';
import { murmur2, partitionOfKey, Sticky } from '../../../src/connectors/kafka/partitioner.ts';

it('hashes keys as the Java client does', () => {
  // From the tests of Kafka's own client.
  const known: Record<string, number> = {
    '21': -973932308,
    foobar: -790332482,
    'a-little-bit-long-string': -985981536,
    'a-little-bit-longer-string': -1486304829,
    lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8: -58897971,
    abc: 479470107,
  };
  expect(Object.fromEntries(Object.keys(known).map((key) => [key, murmur2(Buffer.from(key))]))).toEqual(known);
});

it('takes the sign away before it divides', () => {
  expect(partitionOfKey(Buffer.from('21'), 7)).toBe((-973932308 & 0x7fffffff) % 7);
});

it('stays with a partition for a batch of records without a key, and then takes the next one', () => {
  const sticky = new Sticky(2);
  const places = Array.from({ length: 9 }, () => sticky.partition('t', 3, 32 * 1024));
  expect(places).toEqual([2, 2, 0, 0, 1, 1, 2, 2, 0]);
});
