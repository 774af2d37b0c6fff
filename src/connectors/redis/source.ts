// The source of Redis streams: each stream is a split, its position is in our checkpoints, and there is no consumer group.
//
// Invariants:
//  R1  A position is the id of the last entry given. What the stream says of itself and the entries behind the position are read in one MULTI, so that entries that
//      were trimmed in between are noticed: they are never passed over silently (trimmed.ts).
//  R2  Where reading begins ('latest') and ends (`until`) is settled when the split is found, and lies in the split: after a restore it is the same.

import { MillraceError } from '../../errors.ts';
import type { ReadContext, Source, SourceBatch, SourceContext } from '../../graph/source.ts';
import { type Format, isFormatMisuse, json, prepared } from '../formats.ts';
import { type Connection, connect, type Reply } from './connection.ts';
import { compareIds, countAt, lostSince, START, type StreamFacts, type StreamPosition } from './trimmed.ts';

/** Which streams are read, and from where to where. */
export interface RedisStreamsOptions {
  /** `redis://user:password@host:port/database`, or `rediss://` for TLS. */
  url: string;
  /** One or several; a stream that is not there yet is waited for. */
  stream: string | string[];
  /** The oldest entry by default; `'latest'`: what is added from now on; or the entries behind an id. */
  from?: 'earliest' | 'latest' | { id: string };
  /** `'end'`: what is there at the start, and no more; the source is then bounded. */
  until?: 'end';
  /** Where entries that were not read yet are gone: STREAM_TRIMMED by default, or a warning and on with what is there. */
  onTrimmed?: 'fail' | 'continue';
  /** Entries of one answer; 1,000 by default. */
  batch?: number;
}

/** What `redis.source()` reads. */
export interface RedisSourceOptions<T> extends RedisStreamsOptions {
  /** The field that holds the record; `value` by default. */
  field?: string;
  /** Of that field; json() by default. */
  format?: Format<T>;
}

/** An entry of a stream, as `redis.entries()` gives it. */
export interface RedisEntry {
  readonly stream: string;
  /** `milliseconds-sequence`. */
  readonly id: string;
  readonly fields: Readonly<Record<string, string>>;
}

export interface StreamSplit {
  readonly stream: string;
  readonly from: string;
  /** The last entry to be read; undefined: it goes on. */
  readonly end: string | undefined;
}

/** What becomes of an entry; throws where it is no record. */
type Decode<T> = (stream: string, id: string, fields: readonly Buffer[]) => T;

/** Fetches what `decode` needs for the entries; undefined: it needs nothing. */
type Prepare = (entries: readonly Entry[]) => Promise<void> | undefined;

const WAIT_MS = 1000;
const TIMEOUT_MS = 30_000;

export function redisSource<T>(options: RedisSourceOptions<T>): Source<T, StreamSplit, StreamPosition> {
  const { field = 'value', format = json<T>() } = options;
  const recordOf = (fields: readonly Buffer[]): Buffer | undefined => {
    for (let i = 0; i < fields.length; i += 2) if (fields[i]!.toString() === field) return fields[i + 1]!;
    return undefined;
  };
  const prepare: Prepare = (entries) => {
    if (format.prepare === undefined) return undefined;
    const records = entries.map(([, fields]) => recordOf(fields));
    return prepared(
      format,
      records.filter((record) => record !== undefined),
    );
  };
  const decode: Decode<T> = (_stream, id, fields) => {
    const record = recordOf(fields);
    if (record !== undefined) return format.decode(record);
    throw new MillraceError('RECORD_UNDECODABLE', `The entry ${id} has no field '${field}'.`, {
      todo: 'Name the field, or read the entries with redis.entries().',
    });
  };
  return streamsSource(options, 'redis.source()', decode, prepare);
}

export function redisEntries(options: RedisStreamsOptions): Source<RedisEntry, StreamSplit, StreamPosition> {
  return streamsSource(options, 'redis.entries()', (stream, id, fields) => {
    const named: Record<string, string> = {};
    for (let i = 0; i < fields.length; i += 2) named[fields[i]!.toString()] = fields[i + 1]!.toString();
    return { stream, id, fields: named };
  });
}

function streamsSource<T>(
  options: RedisStreamsOptions,
  name: string,
  decode: Decode<T>,
  prepare: Prepare = () => undefined,
): Source<T, StreamSplit, StreamPosition> {
  const { url, from = 'earliest', until, onTrimmed = 'fail', batch = 1000 } = options;
  const streams = typeof options.stream === 'string' ? [options.stream] : [...(options.stream ?? [])];
  const wrong = (what: string): MillraceError => new MillraceError('OPTION_INVALID', `${name} needs ${what}.`, { todo: 'Look at its options.' });
  if (typeof url !== 'string' || url === '') throw wrong('a url');
  if (streams.length === 0 || streams.some((stream) => typeof stream !== 'string' || stream === '')) throw wrong('a stream');
  if (until !== undefined && until !== 'end') throw wrong("an 'until' that is 'end'");
  if (typeof from === 'object' && !/^\d+(-\d+)?$/.test(from.id)) throw wrong("the id of an entry to begin 'from', such as 1526919030474-0");
  if (!(batch > 0)) throw wrong("'batch' above 0");
  return {
    bounded: until === 'end',
    splits: (context) => found(url, streams, from, until === 'end', context),
    splitId: (split) => split.stream,
    read: (split, position, context) => read({ url, onTrimmed, batch: Math.floor(batch), decode, prepare }, split, position, context),
  };
}

/** R2. */
async function found(
  url: string,
  streams: readonly string[],
  from: NonNullable<RedisStreamsOptions['from']>,
  bounded: boolean,
  { uid, signal }: SourceContext,
): Promise<StreamSplit[]> {
  const explicit = typeof from === 'object' ? from.id : START;
  if (!bounded && from !== 'latest') return streams.map((stream) => ({ stream, from: explicit, end: undefined }));
  const connection = await connect({ url, uid, timeoutMs: TIMEOUT_MS, signal });
  try {
    const splits: StreamSplit[] = [];
    for (const stream of streams) {
      const last = (await factsOf(connection, stream))?.last ?? START;
      splits.push({ stream, from: from === 'latest' ? last : explicit, end: bounded ? last : undefined });
    }
    return splits;
  } finally {
    connection.close();
  }
}

interface Reading<T> {
  readonly url: string;
  readonly onTrimmed: 'fail' | 'continue';
  readonly batch: number;
  readonly decode: Decode<T>;
  readonly prepare: Prepare;
}

async function* read<T>(
  { url, onTrimmed, batch, decode, prepare }: Reading<T>,
  { stream, from, end }: StreamSplit,
  position: StreamPosition | undefined,
  context: ReadContext,
): AsyncGenerator<SourceBatch<T, StreamPosition>> {
  const { uid, signal, log, metrics } = context;
  if (signal.aborted) return;
  const gaps = metrics.counter('trimmed');
  const connection = await connect({ url, uid, timeoutMs: TIMEOUT_MS, signal });
  let at: StreamPosition = position ?? { id: from, count: undefined };
  let begun = position !== undefined;
  try {
    while (!signal.aborted) {
      if (end !== undefined && compareIds(at.id, end) >= 0) return;
      const { facts, entries } = await next(connection, stream, at.id, end, batch);
      // Where a first read begins nothing can have been lost.
      const lost = begun ? lostSince(at, facts) : undefined;
      if (lost !== undefined) {
        if (onTrimmed === 'fail') throw trimmed(stream, at.id, lost, uid);
        log.warn(`Of the stream '${stream}', read up to ${at.id}: ${lost}. The source '${uid}' goes on with what is there.`);
        gaps.inc();
        // A stream that was made anew is read from its beginning.
        const anew = facts === undefined || compareIds(facts.last, at.id) < 0;
        at = { id: anew ? START : at.id, count: facts?.added === undefined ? undefined : facts.added - facts.length };
        if (anew) {
          begun = facts !== undefined;
          continue;
        }
      }
      if (facts !== undefined && !begun && at.id === START && facts.added !== undefined) at = { id: START, count: facts.added - facts.length };
      if (facts !== undefined) begun = true;
      if (facts !== undefined && entries.length > 0) {
        await prepare(entries);
        const taken: SourceBatch<T, StreamPosition> = { values: [], timestamps: [], position: at };
        for (const [id, fields] of entries) {
          try {
            taken.values.push(decode(stream, id, fields));
            taken.timestamps!.push(Number(id.slice(0, id.indexOf('-'))));
          } catch (error) {
            if (isFormatMisuse(error)) throw error;
            context.deadLetter(Buffer.from(JSON.stringify({ stream, id, fields: fields.map(String) })), error);
          }
        }
        const { 0: id } = entries.at(-1)!;
        at = { id, count: countAt(id, at.count, entries.length, facts) };
        taken.position = at;
        yield taken;
        continue;
      }
      // The rest, up to its end, was trimmed or deleted before it was read for the first time.
      if (end !== undefined) return;
      await connection.command('XREAD', 'COUNT', '1', 'BLOCK', String(WAIT_MS), 'STREAMS', stream, at.id);
    }
  } catch (error) {
    // The attempt ended: the connection was closed under way.
    if (!signal.aborted) throw error;
  } finally {
    connection.close();
  }
}

type Entry = readonly [id: string, fields: readonly Buffer[]];

/** R1. */
async function next(
  connection: Connection,
  stream: string,
  behind: string,
  end: string | undefined,
  batch: number,
): Promise<{ facts: StreamFacts | undefined; entries: readonly Entry[] }> {
  const [info, range] = await connection.transactionForBytes([
    ['XINFO', 'STREAM', stream],
    ['XRANGE', stream, `(${behind}`, end ?? '+', 'COUNT', String(batch)],
  ]);
  const facts = factsIn(info!);
  if (range instanceof Error) throw refused(range);
  return { facts, entries: (range as [Buffer, Buffer[] | null][]).map(([id, fields]) => [id.toString(), fields ?? []]) };
}

async function factsOf(connection: Connection, stream: string): Promise<StreamFacts | undefined> {
  const [info] = await connection.transactionForBytes([['XINFO', 'STREAM', stream]]);
  return factsIn(info!);
}

function factsIn(info: Reply): StreamFacts | undefined {
  if (info instanceof Error) {
    if (info.message.includes('no such key')) return undefined;
    throw refused(info);
  }
  const list = info as Reply[];
  const named = new Map<string, Reply>();
  for (let i = 0; i < list.length; i += 2) named.set(String(list[i]), list[i + 1]!);
  const first = named.get('first-entry') as readonly Reply[] | null;
  const added = named.get('entries-added');
  return {
    length: Number(named.get('length')),
    first: first === null ? undefined : String(first[0]),
    last: String(named.get('last-generated-id')),
    added: added === undefined ? undefined : Number(added),
  };
}

function refused(cause: Error): MillraceError {
  return new MillraceError('REDIS_REFUSED', `Redis refuses: ${cause.message}.`, { todo: 'Is the key a stream?', cause });
}

function trimmed(stream: string, id: string, why: string, uid: string): MillraceError {
  return new MillraceError('STREAM_TRIMMED', `Of the stream '${stream}', read up to ${id}: ${why}.`, {
    todo: "Let it keep more, or set onTrimmed: 'continue' to go on with what is there.",
    uid,
  });
}
