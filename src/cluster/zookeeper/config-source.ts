// A configuration as a source: its records are the versions of a node's value.
//
// Invariants:
//  V1  The value that is there at the start is the first record; then each value that is current when it is read. Values in between may be skipped, the last never (follow.ts),
//      through lost connections, expired sessions and restarts of the servers.
//  V2  A position is which node it was (czxid: a node that is removed and created again is another) and the version of its value. Nothing at or below it is given again:
//      a server that lags behind may show an older version, which is no news.
//  V3  Where even a read behind `settle()` is older than the position, it is another ensemble, or one brought back from a copy: its value is current then, and is given.
//  V4  A node that is not there is waited for; that one is removed is no record. What does not decode is a dead letter, and what came before stays in force.

import { type Format, json } from '../../connectors/formats.ts';
import type { ReadContext, Source, SourceBatch, WithoutTimestamps } from '../../graph/source.ts';
import type { Client, Stat, Znode } from './client.ts';
import { followed } from './follow.ts';

/** V2. Plain data: the transaction id has 64 bits. */
export interface ConfigPosition {
  readonly czxid: string;
  readonly version: number;
}

/** The source of one node; the client is asked for when it is read. */
export function configSource<T>(client: Client, path: string, format: Format<T> = json<T>()): Source<T, string, ConfigPosition> & WithoutTimestamps {
  return {
    bounded: false,
    assignsTimestamps: false,
    splits: async () => [path],
    splitId: (split) => split,
    read: (split, from, context) => read(client, split, format, from, context),
  };
}

async function* read<T>(
  client: Client,
  path: string,
  format: Format<T>,
  from: ConfigPosition | undefined,
  { signal, deadLetter, log }: ReadContext,
): AsyncGenerator<SourceBatch<T, ConfigPosition>, void> {
  let at = from;
  for await (let found of followed(client, (wake) => client.get(path, wake), signal)) {
    if (found !== undefined && at !== undefined && isBelow(found.stat, at)) {
      found = await settled(client, path);
      if (found !== undefined && isBelow(found.stat, at))
        log.warn({ path, position: at }, 'The configuration is older than what was read before: ZooKeeper has lost changes. It is taken as it is.');
    }
    if (found === undefined || (at !== undefined && isAt(found.stat, at))) continue;
    const position = { czxid: String(found.stat.czxid), version: found.stat.version };
    at = position;
    let values: T[] = [];
    try {
      await format.prepare?.(found.value);
      values = [format.decode(found.value)];
    } catch (error) {
      deadLetter(new Uint8Array(found.value), error);
    }
    yield { values, position };
  }
}

/** V3. */
async function settled(client: Client, path: string): Promise<Znode | undefined> {
  await client.settle();
  return client.get(path);
}

function isAt(stat: Stat, { czxid, version }: ConfigPosition): boolean {
  return stat.czxid === BigInt(czxid) && stat.version === version;
}

function isBelow(stat: Stat, { czxid, version }: ConfigPosition): boolean {
  const node = BigInt(czxid);
  return stat.czxid < node || (stat.czxid === node && stat.version < version);
}
