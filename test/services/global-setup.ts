// Holds the shared servers of a test run (shared.ts), in its main process: nothing starts before a worker asks.

import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Held, SERVICES } from './shared.ts';

/** Loaded when they are asked for: what tests need no server should not look for one. */
const STARTS: Readonly<Record<string, () => Promise<Held<unknown>>>> = {
  kafka: async () => (await import('./kafka.ts')).startShared(),
  zookeeper: async () => (await import('./zookeeper.ts')).startShared(),
  redis: async () => (await import('./redis.ts')).startShared(),
  postgres: async () => (await import('./postgres.ts')).startShared(),
};

export default async function setup(): Promise<() => Promise<void>> {
  const folder = await mkdtemp(join(tmpdir(), 'millrace-services-'));
  const path = join(folder, 'socket');
  const held = new Map<string, Promise<Held<unknown>>>();

  const answer = async (name: string, socket: Socket): Promise<void> => {
    const start = STARTS[name];
    try {
      if (start === undefined) throw new Error(`There is no service '${name}'.`);
      let server = held.get(name);
      if (server === undefined) {
        server = start();
        held.set(name, server);
      }
      socket.end(JSON.stringify({ value: (await server).value }));
    } catch (error) {
      socket.end(JSON.stringify({ error: String(error) }));
    }
  };

  const door = createServer({ allowHalfOpen: true }, (socket) => {
    let got = '';
    socket.setEncoding('utf8');
    socket.on('data', (text) => {
      got += text;
    });
    socket.once('end', () => void answer(got.trim(), socket));
    // A worker that went away needs no answer.
    socket.on('error', () => socket.destroy());
  });
  await new Promise<void>((resolve, reject) => door.once('error', reject).listen(path, resolve));
  door.unref();
  process.env[SERVICES] = path;

  return async () => {
    door.close();
    const servers = await Promise.allSettled(held.values());
    for (const server of servers) if (server.status === 'fulfilled') await server.value.close();
    await rm(folder, { recursive: true, force: true });
  };
}
