// Changes of a database, as Debezium writes them: an envelope around the row before and after.
//
// Read are envelopes as they are and those with their schema beside them (`{ schema, payload }`), in any format that gives objects: JSON, Avro with a registry,
// MessagePack. A tombstone (nothing, or `null`), which Debezium writes behind each delete for Kafka's compaction, is a change of its own; sources of Kafka pass it over
// before it comes here.

import { MillraceError } from '../errors.ts';
import { type Format, json, undecodable } from './formats.ts';

/** One change of a row. */
export interface Change<T> {
  /** 'r' is a row that was there when the connector took its first snapshot; 't' is a whole table that was emptied, 'm' a message of the database's log. */
  op: 'create' | 'update' | 'delete' | 'read' | 'truncate' | 'message' | 'tombstone';
  /** Null where there was none, or where the database does not say. */
  before: T | null;
  /** Null where there is none any more. */
  after: T | null;
  /** Where it comes from: database, table, position in the log … */
  source: Readonly<Record<string, unknown>>;
  /** When the database made the change, else when Debezium saw it; epoch milliseconds, NaN where neither is said. */
  timestamp: number;
}

const OPERATIONS: Readonly<Record<string, Change<unknown>['op']>> = { c: 'create', u: 'update', d: 'delete', r: 'read', t: 'truncate', m: 'message' };
const LETTERS = new Map(Object.entries(OPERATIONS).map(([letter, op]) => [op, letter]));

/**
 * Changes of a database in Debezium's envelope.
 *
 * @param format of the envelope; `json()` by default. `avro({ registry })` where the connector writes Avro.
 * @throws RECORD_UNDECODABLE for what is no envelope, RECORD_UNENCODABLE, and what the format throws.
 * @example
 * const format = debezium<{ id: number }>();
 * const change = format.decode(Buffer.from('{"op":"c","before":null,"after":{"id":7},"source":{"table":"orders","ts_ms":5},"ts_ms":6}'));
 * assert.deepEqual(change, { op: 'create', before: null, after: { id: 7 }, source: { table: 'orders', ts_ms: 5 }, timestamp: 5 });
 */
export function debezium<T>(format: Format<unknown> = json<unknown>()): Format<Change<T>> {
  return {
    // Its framing comes along (formats.ts, F3).
    ...format,
    decode: (bytes) => (bytes.length === 0 ? tombstone() : changeOf(format.decode(bytes))),
    encode(change) {
      const op = LETTERS.get(change.op);
      if (op === undefined) throw new MillraceError('RECORD_UNENCODABLE', `A change of kind '${change.op}' has no envelope.`);
      const at = Number.isNaN(change.timestamp) ? null : change.timestamp;
      return format.encode({ before: change.before, after: change.after, source: change.source, op, ts_ms: at });
    },
    prepare: format.prepare === undefined ? undefined : (bytes) => (bytes.length === 0 ? undefined : format.prepare!(bytes)),
    ofTopic: format.ofTopic === undefined ? undefined : (topic) => debezium<T>(format.ofTopic!(topic)),
  };
}

function tombstone<T>(): Change<T> {
  return { op: 'tombstone', before: null, after: null, source: {}, timestamp: Number.NaN };
}

function changeOf<T>(decoded: unknown): Change<T> {
  if (decoded === null) return tombstone();
  let envelope = decoded as Record<string, unknown>;
  if (typeof envelope === 'object' && 'payload' in envelope && 'schema' in envelope) {
    if (envelope['payload'] === null) return tombstone();
    envelope = envelope['payload'] as Record<string, unknown>;
  }
  const op = typeof envelope === 'object' ? OPERATIONS[String(envelope['op'])] : undefined;
  if (op === undefined) throw undecodable('Debezium', 'it is no envelope with a known `op`');
  const { before = null, after = null, source } = envelope as { before?: T | null; after?: T | null; source?: Record<string, unknown> | null };
  return { op, before, after, source: source ?? {}, timestamp: millisOf(source?.['ts_ms']) ?? millisOf(envelope['ts_ms']) ?? Number.NaN };
}

/** Longs may come as bigints. */
function millisOf(value: unknown): number | undefined {
  return typeof value === 'number' || typeof value === 'bigint' ? Number(value) : undefined;
}
