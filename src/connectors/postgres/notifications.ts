// Notifications of PostgreSQL (`NOTIFY`, `pg_notify`) as a source. They are not kept anywhere: what is sent while nobody listens is gone, so after a crash, or while a
// connection is made anew, notifications are lost. Where none may be lost, keep rows and let `postgres.source` be woken by them.
//
// Invariants:
//  N1  A position says how many came; nothing can be read again from it.
//  N2  A lost connection is made anew, and that is said (log and the metric `listenGaps`); an answer that refuses fails the job.

import { setTimeout as sleep } from 'node:timers/promises';
import { codeOf, MillraceError } from '../../errors.ts';
import type { ReadContext, Source, SourceBatch } from '../../graph/source.ts';
import { type Format, isFormatMisuse, json, prepared } from '../formats.ts';
import { type Connection, connect, quoted } from './connection.ts';

/** What `postgres.notifications()` listens to. */
export interface PostgresNotificationsOptions<T> {
  /** `postgres://user:password@host:port/database`; not through a pooler that shares connections. */
  url: string;
  /** As it is written, capitals too. */
  channel: string;
  /** Of the payload; json() by default. */
  format?: Format<T>;
}

const RETRY_MS = 500;
const TIMEOUT_MS = 60_000;

export function postgresNotifications<T>(options: PostgresNotificationsOptions<T>): Source<T, string, number> {
  const { url, channel, format = json<T>() } = options;
  if (typeof url !== 'string' || url === '' || typeof channel !== 'string' || channel === '') {
    throw new MillraceError('OPTION_INVALID', 'postgres.notifications() needs a url and a channel.', { todo: 'Give both.' });
  }
  return {
    bounded: false,
    splits: async () => [channel],
    splitId: (split) => split,
    read: (_split, from, context) => listen(url, channel, format, from ?? 0, context),
  };
}

async function* listen<T>(url: string, channel: string, format: Format<T>, from: number, context: ReadContext): AsyncGenerator<SourceBatch<T, number>> {
  const { uid, signal, log, metrics } = context;
  const gaps = metrics.counter('listenGaps');
  let heard: { readonly payload: string; readonly at: number }[] = [];
  let wake: (() => void) | undefined;
  let count = from;
  const stop = (): void => wake?.();
  signal.addEventListener('abort', stop);
  if (from > 0) log.warn(`What was sent to '${channel}' before '${uid}' listened again is lost.`);
  const open = async (): Promise<Connection> => {
    const connection = await connect({ url, name: `millrace ${uid}`, uid, timeoutMs: TIMEOUT_MS, signal });
    connection.onNotification((_channel, payload) => {
      heard.push({ payload, at: Date.now() });
      wake?.();
    });
    void connection.over.then(() => wake?.());
    try {
      await connection.query(`LISTEN ${quoted(channel)}`);
    } catch (error) {
      await connection.close();
      throw error;
    }
    return connection;
  };
  let connection: Connection | undefined;
  try {
    connection = await open();
    while (!signal.aborted) {
      if (heard.length === 0 && connection.lost === undefined) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
        wake = undefined;
        continue;
      }
      const taken = heard;
      heard = [];
      if (taken.length > 0) {
        await prepared(
          format,
          taken.map(({ payload }) => Buffer.from(payload)),
        );
        count += taken.length;
        const batch: { values: T[]; timestamps: number[]; position: number } = { values: [], timestamps: [], position: count };
        for (const { payload, at } of taken) {
          try {
            batch.values.push(format.decode(Buffer.from(payload)));
            batch.timestamps.push(at);
          } catch (error) {
            if (isFormatMisuse(error)) throw error;
            context.deadLetter(Buffer.from(payload), error);
          }
        }
        yield batch;
      }
      if (connection.lost === undefined || signal.aborted) continue;
      gaps.inc();
      log.warn(`The connection of '${uid}' is lost: what is sent to '${channel}' until it listens again is lost too.`);
      connection = await again(open, signal);
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    signal.removeEventListener('abort', stop);
    await connection?.close();
  }
}

async function again(open: () => Promise<Connection>, signal: AbortSignal): Promise<Connection> {
  for (;;) {
    try {
      return await open();
    } catch (error) {
      if (signal.aborted || codeOf(error) !== 'POSTGRES_UNREACHABLE') throw error;
      await sleep(RETRY_MS, undefined, { signal });
    }
  }
}
