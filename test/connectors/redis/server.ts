// What tests of the Redis connector share: a connection of their own to the shared server, and keys with random names.

import { randomBytes } from 'node:crypto';
import { createClient } from 'redis';
import { redisForTests } from '../../services/redis.ts';

export interface Server {
  readonly url: string;
  /** Answers of RESP 2. */
  command(...args: string[]): Promise<unknown>;
  key(): string;
  close(): Promise<void>;
}

export async function openServer(at?: string): Promise<Server> {
  const url = at ?? (await redisForTests());
  const client = createClient({ url, RESP: 2, socket: { reconnectStrategy: false } });
  // A test may kill the server.
  client.on('error', () => {});
  await client.connect();
  return {
    url,
    command: (...args) => client.sendCommand(args),
    key: () => `t:${randomBytes(6).toString('hex')}`,
    async close() {
      if (client.isOpen) client.destroy();
    },
  };
}

/** Of the field `value`, as numbers. */
export async function numbersIn(server: Server, stream: string): Promise<number[]> {
  const entries = (await server.command('XRANGE', stream, '-', '+')) as [string, string[]][];
  return entries.map(([, fields]) => Number(fields[1]));
}
