// Kafka → windows → Kafka in processes that are killed: a few points of those in test/chaos/kafka.test.ts.

import { beforeAll, describe, expect, it } from 'vitest';
import { kafkaForTests, NO_KAFKA } from '../services/kafka.ts';
import { killedAt, type Point, runPoint, zombieAt } from './kafka-points.ts';
import { ensureBuilt } from './trial.ts';

const POINTS: readonly Point[] = [
  // Between send and commit, then between the fence and the marker.
  killedAt(['sink.kafka.commit@3', 'sink.kafka.marker.read']),
  // Between two chunks of a segment, then behind the commit and in front of its note.
  killedAt(['sink.kafka.send@5', 'sink.kafka.committed'], [2, 1, 2], { commitBytes: 600 }),
  zombieAt('sink.kafka.commit@2', [3, 2]),
];

describe.skipIf(NO_KAFKA)('Kafka → windows → Kafka', () => {
  beforeAll(ensureBuilt, 180_000);

  it.each(POINTS)('writes every result once: $name', async (point) => {
    expect(await runPoint(point, await kafkaForTests())).toEqual([]);
  });
});
