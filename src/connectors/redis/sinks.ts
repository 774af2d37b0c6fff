// Plain sinks of Redis: commands, keys, hashes. Those of a call go out together; what was answered is done, so a restart repeats some of them (at least once): keys and
// hashes are then the same again.

import { MillraceError } from '../../errors.ts';
import type { Sink } from '../../graph/sink.ts';
import { type Format, json } from '../formats.ts';
import { type Argument, connect } from './connection.ts';

/** What `redis.sink()` sends. */
export interface RedisSinkOptions<T> {
  /** `redis://user:password@host:port/database`, or `rediss://` for TLS. */
  url: string;
  /** The command of a record: `(v) => ['INCRBY', v.key, String(v.n)]`. */
  command: (value: T) => readonly string[];
}

/** What `redis.keys()` sets. */
export interface RedisKeysOptions<T> {
  /** `redis://user:password@host:port/database`, or `rediss://` for TLS. */
  url: string;
  key: (value: T) => string;
  /** How a record becomes the key's value; json() by default. */
  format?: Format<T>;
  /** When the key is forgotten, ms after it was set; never by default. */
  expire?: number;
  /** True: the key is deleted instead. */
  remove?: (value: T) => boolean;
}

/** What `redis.hashes()` sets. */
export interface RedisHashesOptions<T> {
  /** `redis://user:password@host:port/database`, or `rediss://` for TLS. */
  url: string;
  key: (value: T) => string;
  /** Fields to set; others of the hash stay. By default those of the record. */
  fields?: (value: T) => Readonly<Record<string, string | number | Uint8Array>>;
}

const TIMEOUT_MS = 30_000;

export function redisSink<T>({ url, command }: RedisSinkOptions<T>): Sink<T> {
  needs('redis.sink()', url, { command });
  return sinkOf(url, (value) => command(value));
}

export function redisKeys<T>({ url, key, format = json<T>(), expire, remove }: RedisKeysOptions<T>): Sink<T> {
  needs('redis.keys()', url, { key });
  if (expire !== undefined && !(expire >= 1)) throw new MillraceError('OPTION_INVALID', "redis.keys() needs an 'expire' of at least 1 ms.");
  const expiring = expire === undefined ? [] : ['PX', String(Math.floor(expire))];
  const sink = sinkOf<T>(url, (value) => (remove?.(value) === true ? ['DEL', key(value)] : ['SET', key(value), bytesOf(format.encode(value)), ...expiring]));
  return {
    async open(context) {
      await format.open?.();
      return sink.open(context);
    },
  };
}

export function redisHashes<T>({ url, key, fields }: RedisHashesOptions<T>): Sink<T> {
  needs('redis.hashes()', url, { key });
  return sinkOf(url, (value) => ['HSET', key(value), ...flattened(fields === undefined ? (value as Record<string, string>) : fields(value))]);
}

function sinkOf<T>(url: string, commandOf: (value: T) => readonly Argument[]): Sink<T> {
  return {
    async open({ uid, signal }) {
      const connection = await connect({ url, uid, timeoutMs: TIMEOUT_MS, signal });
      return {
        async write(values) {
          await connection.commands(values.map(commandOf));
        },
        async flush() {},
        async close() {
          connection.close();
        },
      };
    },
  };
}

/** Name, value, name, value. @throws RECORD_UNENCODABLE */
export function flattened(fields: Readonly<Record<string, unknown>>): Argument[] {
  const flat: Argument[] = [];
  for (const [name, value] of Object.entries(fields)) {
    if (typeof value === 'string') flat.push(name, value);
    else if (typeof value === 'number' || typeof value === 'bigint') flat.push(name, String(value));
    else if (value instanceof Uint8Array) flat.push(name, bytesOf(value));
    else if (value !== undefined) {
      throw new MillraceError('RECORD_UNENCODABLE', `The field '${name}' is neither text nor a number nor bytes.`, {
        todo: 'Give the sink a `fields` function.',
      });
    }
  }
  if (flat.length === 0) throw new MillraceError('RECORD_UNENCODABLE', 'A record has no fields for Redis.', { todo: 'Give the sink a `fields` function.' });
  return flat;
}

export function bytesOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

export function needs(name: string, url: unknown, functions: Readonly<Record<string, unknown>>): void {
  if (typeof url !== 'string' || url === '') throw new MillraceError('OPTION_INVALID', `${name} needs a url.`, { todo: 'redis://host:port' });
  for (const [option, value] of Object.entries(functions)) {
    if (typeof value !== 'function') throw new MillraceError('OPTION_INVALID', `${name} needs '${option}', a function.`, { todo: 'Look at its options.' });
  }
}
