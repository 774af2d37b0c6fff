// What following holds, on a client that the test answers for.

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect, it } from 'vitest';
import type { Client } from '../../../src/cluster/zookeeper/client.ts';
import { followed } from '../../../src/cluster/zookeeper/follow.ts';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

it('follows for as long as anybody likes, and holds nothing that it has given', async () => {
  const client = { on: () => () => {}, hold: () => () => {}, unwatch: () => {} } as unknown as Client;
  const given: WeakRef<object>[] = [];
  const read = async (wake: () => void): Promise<object> => {
    const value = { bytes: Buffer.alloc(1) };
    given.push(new WeakRef(value));
    wake();
    return value;
  };
  const ending = new AbortController();
  const values = followed(client, read, ending.signal);
  for (let i = 0; i < 20; i++) await values.next();
  // A turn in which nothing is read.
  await new Promise((resolve) => setImmediate(resolve));
  collect();
  expect(given.slice(0, 10).filter((each) => each.deref() !== undefined)).toEqual([]);
  ending.abort();
  await values.return();
});
