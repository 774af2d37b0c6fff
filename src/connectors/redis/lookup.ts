// Lookups in Redis for `asyncMap`: the values of keys, remembered for a while (../lookup.ts). Keys asked for at the same time go out as one MGET.

import { asError } from '../../errors.ts';
import { type Format, json, prepared } from '../formats.ts';
import { type Lookup, type LookupCache, LookupConnection, lookupOf } from '../lookup.ts';
import { connect } from './connection.ts';
import { needs } from './sinks.ts';

/** What `redis.lookup()` asks. */
export interface RedisLookupOptions<R> {
  /** `redis://user:password@host:port/database`, or `rediss://` for TLS. */
  url: string;
  /** In front of each key; nothing by default. */
  prefix?: string;
  /** Of the values; json() by default. */
  format?: Format<R>;
  /** What is remembered, and for how long; 10,000 keys for a minute by default. */
  cache?: LookupCache;
}

const TIMEOUT_MS = 10_000;

export function redisLookup<R>({ url, prefix = '', format = json<R>(), cache }: RedisLookupOptions<R>): Lookup<string | number, R> {
  needs('redis.lookup()', url, {});
  const connection = new LookupConnection(
    () => connect({ url, timeoutMs: TIMEOUT_MS }),
    ({ lost }) => lost,
  );
  return lookupOf<string | number, R>({
    cache,
    async load(keys) {
      const values = (await (await connection.current()).commandForBytes('MGET', ...keys.map((key) => prefix + key))) as (Buffer | null)[];
      await prepared(
        format,
        values.filter((value) => value !== null),
      );
      return new Map(keys.flatMap((key, i) => (values[i] === null ? [] : [[String(key), decoded(format, values[i]!)] as const])));
    },
    close: () => connection.close(),
  });
}

/** What does not decode is the failure of its key, and of no other. */
function decoded<R>(format: Format<R>, bytes: Buffer): R | Error {
  try {
    return format.decode(bytes);
  } catch (error) {
    return asError(error);
  }
}
