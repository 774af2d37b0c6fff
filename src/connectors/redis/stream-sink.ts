// The sink of a Redis stream, exactly once: entries and marker change in one script, which Redis runs alone.
//
//   millrace:{<stream>}:<uid>/<lineage>/<writer>     hash: attempt, checkpoint; while a checkpoint is half written also partial (which) and chunks (how many are)
//
// The braces put the marker into the slot of the stream, for clusters. `onEvicted`: a server that evicts keys at its limit of memory may evict the marker; it is then lost.
//
// Invariants (protocols 18):
//  X1  `open` raises `attempt`. Scripts of an older attempt refuse from then on; there are no open transactions in Redis, so nothing has to be waited for.
//  X2  A script first checks everything (attempt, checkpoint, chunk, the key's type) and then writes: nothing is written where something is wrong. What no script
//      could add is refused on arrival.
//  X3  A checkpoint is written in chunks, each with its number in the marker; `commit` called again with the same records passes over those that are there. How
//      records are cut into chunks must therefore never change for records that are in a snapshot.
//  X4  After a commit that failed its outcome is unknown: the writer refuses everything but `close`.

import { MillraceError } from '../../errors.ts';
import type { SinkContext, TransactionalSink, TransactionalWriter } from '../../graph/sink.ts';
import { type Io, systemIo } from '../../runtime/io.ts';
import { type Format, json } from '../formats.ts';
import { type Argument, type Connection, connect } from './connection.ts';
import { bytesOf, flattened, needs } from './sinks.ts';

/** What `redis.stream()` adds, and where. */
export interface RedisStreamOptions<T> {
  /** `redis://user:password@host:port/database`, or `rediss://` for TLS. */
  url: string;
  stream: string;
  /** Fields of the entry; by default one, `value`, in the format. */
  fields?: (value: T) => Readonly<Record<string, string | number | Uint8Array>>;
  /** json() by default. */
  format?: Format<T>;
  /** About how many entries the stream keeps; all by default. */
  maxLength?: number;
}

/** Every step at which a test can fail or kill the process. */
export const REDIS_STREAM_STEPS = ['sink.redis.open', 'sink.redis.opened', 'sink.redis.chunk', 'sink.redis.written'] as const;

const TIMEOUT_MS = 30_000;
/** X3: never change these. */
const CHUNK_RECORDS = 500;
const CHUNK_BYTES = 1 << 20;
/** Of an entry (X2): a script passes them on by the stack of Lua, which has room for 8,000 values. */
const FIELDS_MAX = 3500;

const OPEN = `
local at = redis.call('HMGET', KEYS[1], 'attempt', 'checkpoint', 'partial')
if not at[1] then
  if ARGV[2] == 'born' then return {'lost', '0'} end
  redis.call('HSET', KEYS[1], 'attempt', ARGV[1], 'checkpoint', '0')
  return {'open', '0', '0'}
end
if tonumber(at[1]) > tonumber(ARGV[1]) then return {'fenced', at[1]} end
redis.call('HSET', KEYS[1], 'attempt', ARGV[1])
return {'open', at[2], at[3] or '0'}`;

/** attempt, checkpoint read, checkpoint, chunk, 'last' or 'more', most entries or '', then for each entry the number of its arguments and these. */
const WRITE = `
local at = redis.call('HMGET', KEYS[1], 'attempt', 'checkpoint', 'partial', 'chunks')
if not at[1] then return {'lost', '0'} end
if tonumber(at[1]) > tonumber(ARGV[1]) then return {'fenced', at[1]} end
if at[2] ~= ARGV[2] then return {'changed', at[2]} end
if at[3] and at[3] ~= ARGV[3] then return {'unfinished', at[3]} end
local done = tonumber(at[4] or '0')
local chunk = tonumber(ARGV[4])
if done > chunk then return {'written', '0'} end
local kind = redis.call('TYPE', KEYS[2]).ok
if kind ~= 'stream' and kind ~= 'none' then return {'type', kind} end
local i = 7
while i <= #ARGV do
  local n = tonumber(ARGV[i])
  if ARGV[6] == '' then redis.call('XADD', KEYS[2], '*', unpack(ARGV, i + 1, i + n))
  else redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[6], '*', unpack(ARGV, i + 1, i + n)) end
  i = i + n + 1
end
if ARGV[5] == 'last' then
  redis.call('HSET', KEYS[1], 'checkpoint', ARGV[3])
  redis.call('HDEL', KEYS[1], 'partial', 'chunks')
else
  redis.call('HSET', KEYS[1], 'partial', ARGV[3], 'chunks', chunk + 1)
end
return {'written', '0'}`;

type Entry = readonly (string | Uint8Array)[];

interface Kept {
  readonly stream: string;
  readonly committed: number;
}

export function redisStream<T>(options: RedisStreamOptions<T>, io: Io = systemIo()): TransactionalSink<T, Entry> {
  const { url, stream, fields, format = json<T>(), maxLength } = options;
  needs('redis.stream()', url, {});
  if (typeof stream !== 'string' || stream === '') throw new MillraceError('OPTION_INVALID', 'redis.stream() needs a stream.', { todo: 'Name it.' });
  if (maxLength !== undefined && !(maxLength >= 1)) throw new MillraceError('OPTION_INVALID', "redis.stream() needs a 'maxLength' of at least 1.");
  const encode = fields === undefined ? (value: T): Entry => ['value', format.encode(value)] : (value: T): Entry => narrow(flattened(fields(value)));
  return {
    transactional: true,
    async open(context) {
      await format.open?.();
      await io.step('sink.redis.open');
      const connection = await connect({ url, uid: context.uid, timeoutMs: TIMEOUT_MS, signal: context.signal });
      try {
        const writer = new Writer<T>(connection, stream, maxLength, encode, context, io);
        await writer.fence();
        await io.step('sink.redis.opened');
        return writer;
      } catch (error) {
        connection.close();
        throw error;
      }
    },
  };
}

class Writer<T> implements TransactionalWriter<T, Entry> {
  readonly encode: (value: T) => Entry;
  readonly #connection: Connection;
  readonly #stream: string;
  readonly #maxLength: string;
  readonly #marker: string;
  readonly #context: SinkContext;
  readonly #io: Io;
  #committed = 0;
  #begun = 0;
  #state: 'ready' | 'doubtful' | 'closed' = 'ready';

  constructor(connection: Connection, stream: string, maxLength: number | undefined, encode: (value: T) => Entry, context: SinkContext, io: Io) {
    this.#connection = connection;
    this.#stream = stream;
    this.#maxLength = maxLength === undefined ? '' : String(Math.floor(maxLength));
    this.encode = encode;
    this.#context = context;
    this.#io = io;
    const { uid, lineage, writer } = context;
    this.#marker = `millrace:{${/\{([^}]+)\}/.exec(stream)?.[1] ?? stream}}:${uid}/${lineage}/${writer}`;
  }

  async fence(): Promise<void> {
    const kept = this.#context.restored as Kept | undefined;
    const known = kept !== undefined && kept.stream === this.#stream;
    const [said, what, partial] = await this.#run(OPEN, [this.#marker], [String(this.#context.attempt), known ? 'born' : 'new']);
    if (said !== 'open') throw this.#refused(said, what);
    this.#committed = Number(what);
    this.#begun = Math.max(this.#committed, Number(partial));
    if (known && this.#committed < kept.committed) throw this.#refused('changed', what);
  }

  async commit(checkpoint: number, records: Iterable<Entry>): Promise<void> {
    this.#usable();
    if (checkpoint <= this.#committed) {
      throw new MillraceError('COMMIT_ID_REUSED', `Checkpoint ${checkpoint} was to be committed after ${this.#committed}.`, {
        todo: 'Begin anew with restore none, or with a checkpoint directory of its own.',
        uid: this.#context.uid,
      });
    }
    this.#state = 'doubtful';
    let number = 0;
    for (const { args, last } of chunksOf(records)) {
      await this.#io.step('sink.redis.chunk');
      const head = [this.#context.attempt, this.#committed, checkpoint, number].map(String);
      const [said, what] = await this.#run(WRITE, [this.#marker, this.#stream], [...head, last ? 'last' : 'more', this.#maxLength, ...args]);
      if (said !== 'written') throw this.#refused(said, what);
      await this.#io.step('sink.redis.written');
      number += 1;
    }
    this.#committed = checkpoint;
    this.#begun = checkpoint;
    this.#state = 'ready';
  }

  snapshot(): Kept {
    return { stream: this.#stream, committed: this.#committed };
  }

  async lastCommitted(): Promise<number> {
    this.#usable();
    return this.#committed;
  }

  async lastBegun(): Promise<number> {
    this.#usable();
    return this.#begun;
  }

  async close(): Promise<void> {
    this.#state = 'closed';
    this.#connection.close();
  }

  async #run(script: string, keys: readonly string[], args: readonly Argument[]): Promise<[said: string, what: string, partial?: string]> {
    return (await this.#connection.command('EVAL', script, String(keys.length), ...keys, ...args)) as unknown as [string, string, string?];
  }

  #refused(said: string, what: string): MillraceError {
    const { uid, attempt } = this.#context;
    switch (said) {
      case 'fenced':
        return new MillraceError('WRITER_FENCED', `Attempt ${what} writes with the marker '${this.#marker}', and this is ${attempt}.`, {
          todo: 'Stop this process: another one has taken over.',
          uid,
        });
      case 'type':
        return new MillraceError('REDIS_REFUSED', `The key '${this.#stream}' is a ${what} and no stream.`, { todo: 'Name another one.', uid });
      case 'unfinished':
        return new MillraceError('RESTORE_WOULD_DUPLICATE', `A part of checkpoint ${what} is in the stream '${this.#stream}', and it was not restored.`, {
          todo: `Restore checkpoint ${what}, or accept that this part is written twice: HDEL ${this.#marker} partial chunks.`,
          uid,
        });
      default: {
        const why = said === 'lost' ? 'is gone' : `says ${what}, and something else was committed`;
        return new MillraceError('MARKER_LOST', `What was committed to the stream '${this.#stream}' is not known: its marker '${this.#marker}' ${why}.`, {
          todo: 'Put it back with the checkpoint that was committed last, or begin anew with restore none.',
          uid,
        });
      }
    }
  }

  #usable(): void {
    if (this.#state === 'ready') return;
    const sentence = this.#state === 'closed' ? 'The Redis writer is closed.' : 'The outcome of an earlier commit of this Redis writer is unknown.';
    throw new MillraceError('SINK_FAILED', sentence, { todo: 'Open the sink again.', uid: this.#context.uid });
  }
}

function narrow(entry: Entry): Entry {
  if (entry.length <= 2 * FIELDS_MAX) return entry;
  throw new MillraceError('RECORD_UNENCODABLE', `A record has ${entry.length / 2} fields, and an entry of redis.stream() takes ${FIELDS_MAX}.`, {
    todo: 'Leave `fields` out, so that the record is one field, or give fewer.',
  });
}

/** X3. */
function* chunksOf(records: Iterable<Entry>): Generator<{ args: Argument[]; last: boolean }> {
  let args: Argument[] = [];
  let count = 0;
  let bytes = 0;
  for (const record of records) {
    if (count >= CHUNK_RECORDS || bytes >= CHUNK_BYTES) {
      yield { args, last: false };
      args = [];
      count = 0;
      bytes = 0;
    }
    args.push(String(record.length));
    for (const part of record) {
      args.push(typeof part === 'string' ? part : bytesOf(part));
      bytes += part.length;
    }
    count += 1;
  }
  yield { args, last: true };
}
