// Clients and roots of the tests' own, on the shared server or on one that a test stops and kills.

import { randomUUID } from 'node:crypto';
import { afterAll, afterEach } from 'vitest';
import type { Client } from '../../../src/cluster/zookeeper/client.ts';
import { Session, type SessionOptions } from '../../../src/cluster/zookeeper/session.ts';
import { ZooKeeperServer, zookeeperForTests } from '../../services/zookeeper.ts';

/** A root that no other test has. */
export function freshRoot(): string {
  return `/t-${randomUUID()}`;
}

/** Sessions that are closed behind each test. */
export function clientsForTests(): (options?: Partial<SessionOptions>) => Promise<Session> {
  const open: Session[] = [];
  afterEach(async () => {
    await Promise.all(open.splice(0).map((each) => each.close()));
  });
  return async (options = {}) => {
    const session = new Session({
      connect: options.connect ?? (await zookeeperForTests()),
      root: freshRoot(),
      sessionTimeoutMs: 4000,
      connectTimeoutMs: 10_000,
      ...options,
    });
    open.push(session);
    return session;
  };
}

/** One server for a file that stops and kills it. */
export function ownServer(): () => Promise<ZooKeeperServer> {
  let server: Promise<ZooKeeperServer> | undefined;
  afterAll(async () => (await server)?.close());
  return () => {
    server ??= ZooKeeperServer.start();
    return server;
  };
}

/** Resolves when the client has told of that. */
export function told(client: Client, event: Parameters<Client['on']>[0]): Promise<void> {
  return new Promise((resolve) => {
    const off = client.on(event, () => {
      off();
      resolve();
    });
  });
}

/** The first of what an iteration gives of which the predicate holds; the iteration goes on behind it. */
export async function until<T>(values: AsyncIterable<T>, is: (value: T) => boolean): Promise<T> {
  const iterator = values[Symbol.asyncIterator]();
  for (;;) {
    const { value, done } = await iterator.next();
    if (done === true) throw new Error('it ended before');
    if (is(value)) return value;
  }
}

export function text(value: string): Buffer {
  return Buffer.from(value);
}
