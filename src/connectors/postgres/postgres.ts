// The parts of the Postgres connector under one name. The package `pg` is loaded by the first of them that connects.

import type { Sink, TransactionalSink } from '../../graph/sink.ts';
import type { Source } from '../../graph/source.ts';
import type { Lookup } from '../lookup.ts';
import { type PostgresLookupOptions, postgresLookup } from './lookup.ts';
import { type PostgresNotificationsOptions, postgresNotifications } from './notifications.ts';
import { type PostgresRowsOptions, type PostgresSinkOptions, postgresRows, postgresSink } from './sink.ts';
import { type PostgresSourceOptions, postgresSource } from './source.ts';

/**
 * PostgreSQL: tables as source and as sink, exactly once, notifications, and lookups for `asyncMap`. Install `pg` 8 beside Millrace.
 * @example
 * const url = 'postgres://mill@localhost/mill';
 * const totals = job('totals', (env) => {
 *   env
 *     .source('orders', postgres.source<{ customer: string; total: number }>({ url, table: 'orders', column: 'id' }))
 *     .keyBy((order) => order.customer)
 *     .reduce('sum', (sum, order) => ({ ...sum, total: sum.total + order.total }))
 *     .sink('totals', postgres.sink({ url, table: 'totals', key: ['customer'] }));
 * });
 * assert.equal(totals.name, 'totals');
 */
export const postgres = {
  /**
   * Reads the rows of a table in the order of a column that rises, and goes on with those that come. Read in one place, exactly from where it was after a restore;
   * what it can miss stands in docs/connectors-postgres.md.
   *
   * @throws OPTION_INVALID; PACKAGE_MISSING, POSTGRES_UNREACHABLE, POSTGRES_REFUSED in the job.
   * @example
   * const orders = postgres.source<{ id: number; total: number }>({ url: 'postgres://mill@localhost/mill', table: 'orders', column: 'id', until: 'end' });
   * assert.equal(orders.bounded, true);
   */
  source: <T>(options: PostgresSourceOptions<T>): Source<T> => postgresSource(options) as Source<T>,
  /**
   * Payloads of `NOTIFY`. What is sent while the job does not listen is lost: it is for what may be.
   *
   * @throws OPTION_INVALID; PACKAGE_MISSING, POSTGRES_UNREACHABLE, POSTGRES_REFUSED in the job. A payload that does not decode is a dead letter.
   * @example
   * const hints = postgres.notifications<{ table: string }>({ url: 'postgres://mill@localhost/mill', channel: 'hints' });
   * assert.equal(hints.bounded, false);
   */
  notifications: <T>(options: PostgresNotificationsOptions<T>): Source<T> => postgresNotifications(options) as Source<T>,
  /**
   * Writes rows exactly once: those of a checkpoint in one transaction, together with a marker row. With `key` a row replaces that of the same key.
   *
   * @throws OPTION_INVALID; SINK_NEVER_COMMITS at the start of an unbounded job without checkpoints; PACKAGE_MISSING, POSTGRES_UNREACHABLE, POSTGRES_REFUSED,
   * WRITER_FENCED, MARKER_LOST in the job.
   * @example
   * const totals = postgres.sink<{ customer: string; total: number }>({
   *   url: 'postgres://mill@localhost/mill',
   *   table: 'totals',
   *   key: ['customer'],
   *   row: ({ customer, total }) => ({ customer, total, changed: new Date() }),
   * });
   * assert.equal(totals.transactional, true);
   */
  sink: <T>(options: PostgresSinkOptions<T>): TransactionalSink<T> => postgresSink(options) as TransactionalSink<T>,
  /**
   * Writes rows in batches as they come, without waiting for checkpoints: at least once. With `key` a row that comes again replaces itself.
   *
   * @throws OPTION_INVALID; PACKAGE_MISSING, POSTGRES_UNREACHABLE, POSTGRES_REFUSED in the job.
   * @example
   * const latest = postgres.rows<{ host: string; cpu: number }>({ url: 'postgres://mill@localhost/mill', table: 'latest', key: ['host'] });
   * assert.equal(typeof latest.open, 'function');
   */
  rows: <T>(options: PostgresRowsOptions<T>): Sink<T> => postgresRows(options),
  /**
   * Rows by key, for `asyncMap`: remembered for a while, that there is none too, and asked for together. Connects when it is first asked.
   *
   * @throws OPTION_INVALID; what it is asked for rejects with PACKAGE_MISSING, POSTGRES_UNREACHABLE or POSTGRES_REFUSED.
   * @example
   * const customers = postgres.lookup<{ id: number; name: string }>({
   *   url: 'postgres://mill@localhost/mill',
   *   query: 'SELECT id, name FROM customers WHERE id = ANY($1)',
   *   key: 'id',
   *   cache: { size: 1000, ttl: minutes(5) },
   * });
   * const named = job('named', (env) => {
   *   env
   *     .fromArray('orders', [{ customer: 7, total: 12 }])
   *     .asyncMap('customer', async (order) => ({ ...order, name: (await customers.get(order.customer))?.name }))
   *     .sink('out', print());
   * });
   * assert.equal(named.name, 'named');
   */
  lookup: <R>(options: PostgresLookupOptions): Lookup<string | number, R> => postgresLookup<R>(options),
};
