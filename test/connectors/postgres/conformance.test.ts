import { type SinkTrial, type SourceTrial, sinkConformance, sourceConformance } from 'millrace/testing';
import { afterAll, beforeAll, describe, it } from 'vitest';
import { postgres } from '../../../src/connectors/postgres/postgres.ts';
import { NO_POSTGRES } from '../../services/postgres.ts';
import { Database } from './database.ts';

describe.skipIf(NO_POSTGRES)('PostgreSQL, as every connector', () => {
  let database: Database;
  beforeAll(async () => {
    database = await Database.open();
  });
  afterAll(() => database?.close());

  const values = Array.from({ length: 24 }, (_, n) => ({ n }));

  describe('the source of a table', () => {
    const open = async (): Promise<SourceTrial<{ n: number }>> => {
      const table = await database.table('n int PRIMARY KEY');
      await database.query(`INSERT INTO ${table} SELECT generate_series(0, 23)`);
      return { source: () => postgres.source({ url: database.url, table, column: 'n', until: 'end', settle: 0, every: 20, batch: 5 }), expected: values };
    };
    for (const { name, run } of sourceConformance(open)) it(name, run);
  });

  describe('the sink of a table', () => {
    const open = async (): Promise<SinkTrial<{ n: number }>> => {
      const table = await database.table('n int');
      return {
        sink: () => postgres.sink<{ n: number }>({ url: database.url, table, markerTable: `${table}_m` }),
        values,
        written: async () => (await database.numbers(table)).map((n) => ({ n })),
      };
    };
    for (const { name, run } of sinkConformance('transactional', open)) it(name, run);
  });
});
