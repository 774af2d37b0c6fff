// Lookups in PostgreSQL for `asyncMap`: the row of a key, remembered for a while (../lookup.ts). Keys asked for at the same time go out as one query.

import { MillraceError } from '../../errors.ts';
import { type Lookup, type LookupCache, LookupConnection, lookupOf } from '../lookup.ts';
import { connect } from './connection.ts';

/** What `postgres.lookup()` asks. */
export interface PostgresLookupOptions {
  /** `postgres://user:password@host:port/database`. */
  url: string;
  /** Gives the rows of many keys: `SELECT id, name FROM customers WHERE id = ANY($1)`. */
  query: string;
  /** The column of the result that holds the key. */
  key: string;
  /** What is remembered, and for how long; 10,000 keys for a minute by default. */
  cache?: LookupCache;
  /** How long the server may take, ms; 10 s by default. */
  timeout?: number;
}

const TIMEOUT_MS = 10_000;

export function postgresLookup<R>(options: PostgresLookupOptions): Lookup<string | number, R> {
  const { url, query, key, cache, timeout = TIMEOUT_MS } = options;
  if (typeof url !== 'string' || url === '' || typeof query !== 'string' || !query.includes('$1') || typeof key !== 'string' || key === '') {
    throw new MillraceError('OPTION_INVALID', 'postgres.lookup() needs a url, a query with $1 and a key.', { todo: "Such as 'SELECT … WHERE id = ANY($1)'." });
  }
  const connection = new LookupConnection(
    () => connect({ url, name: 'millrace lookup', timeoutMs: timeout }),
    ({ lost }) => lost !== undefined,
  );
  return lookupOf<string | number, R>({
    cache,
    async load(keys) {
      const rows = await (await connection.current()).query(query, [keys]);
      if (rows.length > 0 && !(key in rows[0]!)) {
        throw new MillraceError('POSTGRES_REFUSED', `The query of a lookup gives no column '${key}'.`, { todo: 'Select it, or correct the key.' });
      }
      // A bigint comes as text.
      return new Map(rows.map((row) => [String(row[key]), row as R]));
    },
    close: () => connection.close(),
  });
}
