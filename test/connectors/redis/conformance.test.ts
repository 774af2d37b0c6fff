import { type SinkTrial, type SourceTrial, sinkConformance, sourceConformance } from 'millrace/testing';
import { afterAll, beforeAll, describe, it } from 'vitest';
import { redis } from '../../../src/connectors/redis/redis.ts';
import { NO_REDIS } from '../../services/redis.ts';
import { numbersIn, openServer, type Server } from './server.ts';

describe.skipIf(NO_REDIS)('Redis, as every connector', () => {
  let server: Server;
  beforeAll(async () => {
    server = await openServer();
  });
  afterAll(() => server?.close());

  const values = Array.from({ length: 24 }, (_, n) => n);

  describe('the source of streams', () => {
    const open = async (): Promise<SourceTrial<number>> => {
      const streams = [server.key(), server.key()];
      for (const n of values) await server.command('XADD', streams[n % 2]!, '*', 'value', String(n));
      await server.command('XADD', streams[0]!, '*', 'value', 'no json');
      return { source: () => redis.source<number>({ url: server.url, stream: streams, until: 'end', batch: 5 }), expected: values, letters: 1 };
    };
    for (const { name, run } of sourceConformance(open)) it(name, run);
  });

  describe('the sink of a stream', () => {
    const open = (): SinkTrial<number> => {
      const stream = server.key();
      return { sink: () => redis.stream<number>({ url: server.url, stream }), values, written: () => numbersIn(server, stream) };
    };
    for (const { name, run } of sinkConformance('transactional', open)) it(name, run);
  });
});
