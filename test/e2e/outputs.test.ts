// Zombies of the files and the Postgres sink in long runs, a few points of those in test/chaos/outputs.test.ts; and the Kafka sink that writes at least once.

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Database } from '../connectors/postgres/database.ts';
import { LONG } from '../long.ts';
import { kafkaForTests, NO_KAFKA } from '../services/kafka.ts';
import { NO_POSTGRES } from '../services/postgres.ts';
import { killedAt, runPoint as runKafkaPoint } from './kafka-points.ts';
import { FILES, type Interruption, postgresOutput, removeInputs, runPoint } from './output-points.ts';
import { ensureBuilt } from './trial.ts';

describe.skipIf(!LONG)('a job that is interrupted', () => {
  beforeAll(ensureBuilt, 180_000);
  afterAll(removeInputs);

  it.each<[Interruption, string]>([
    ['overtaken', 'sink.files.append'],
    ['overtaken', 'sink.files.marker.rename'],
    ['overtaken', 'sink.files.published'],
    ['stopped', 'sink.files.marker.write'],
  ])('writes every row to files once: %s at %s', async (how, step) => {
    expect(await runPoint(FILES, step, how)).toEqual([]);
  });

  it.skipIf(NO_KAFKA)('writes every row to Kafka, some of them again, where it writes at least once', async () => {
    const point = killedAt(['sink.kafka.produce@3', 'sink.kafka.produce@2'], [2, 3, 1], { guarantee: 'at-least-once' });
    expect(await runKafkaPoint(point, await kafkaForTests())).toEqual([]);
  });

  describe.skipIf(NO_POSTGRES)('over PostgreSQL', () => {
    let database: Database;
    beforeAll(async () => {
      database = await Database.open();
    });
    afterAll(() => database?.close());

    it.each<[Interruption, string]>([
      ['killed', 'sink.postgres.marked'],
      ['overtaken', 'sink.postgres.commit'],
      ['overtaken', 'sink.postgres.opened'],
      ['stopped', 'sink.postgres.rows'],
    ])('writes every row once: %s at %s', async (how, step) => {
      expect(
        await runPoint(
          postgresOutput(() => database),
          step,
          how,
        ),
      ).toEqual([]);
    });
  });
});
