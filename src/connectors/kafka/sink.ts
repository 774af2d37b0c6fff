// The Kafka sink: exactly once (transactional-writer.ts), or at least once (plain-writer.ts).
//
// What: options are checked when the sink is made, everything else when it opens. Writers of one attempt share a session (sink-session.ts).

import { MillraceError } from '../../errors.ts';
import type { Sink, SinkContext, SinkWriter, TransactionalSink, TransactionalWriter } from '../../graph/sink.ts';
import { type Io, systemIo } from '../../runtime/io.ts';
import { type Format, json } from '../formats.ts';
import type { Compression, KafkaAdapter } from './client.ts';
import { codecOf } from './compression.ts';
import { adapterOf, type KafkaConnection } from './connection.ts';
import { MARKER_TOPIC } from './marker.ts';
import { KafkaPlainWriter } from './plain-writer.ts';
import { type KafkaRow, type RowOptions, Rows } from './rows.ts';
import { SinkSession } from './sink-session.ts';
import { metBy } from './topics.ts';
import { KafkaTransactionalWriter, type OnMarkerLost } from './transactional-writer.ts';

/** What `kafka.sink()` writes, and where. */
export interface KafkaSinkOptions<T> extends KafkaConnection {
  /** The topic, or that of each record. It must exist. */
  topic: string | ((value: T) => string);
  /** Decides on the partition as every other client does, and on what a compacted topic keeps; none by default. */
  key?: (value: T) => string | Uint8Array | null;
  /** None by default. */
  headers?: (value: T) => Record<string, string | Uint8Array>;
  /** True: written without a value, which takes the key away from a compacted topic. */
  tombstone?: (value: T) => boolean;
  /** json() by default. */
  format?: Format<T>;
  /** 'exactly-once' by default: records appear to readers with `read_committed` when their checkpoint is complete. 'at-least-once': at once, and again after a restart. */
  guarantee?: 'exactly-once' | 'at-least-once';
  /** The beginning of transactional ids, which go on `-<uid>-<writer>`; the job's name by default. No two jobs on one cluster may have the same with the same uid. */
  transactionalIdPrefix?: string;
  /** How long a transaction may be open, ms; a minute by default, or what the broker grants if that is less. A stop for longer makes a writer begin again. */
  transactionTimeout?: number;
  /** The compacted topic in which writers keep what they have committed; 'millrace-markers' by default, made where it is missing. */
  markerTopic?: string;
  /** When a marker was deleted, so that nobody knows what is committed: 'fail' (the default), 'commit' what is pending, perhaps twice, or 'discard' it. */
  onMarkerLost?: OnMarkerLost;
  /** Bytes of one transaction; 32 MiB by default. A checkpoint with more of them is several. */
  commitBytes?: number;
  /** Bytes of checkpoints that are not committed yet beyond which, with more than two of them, a writer is given no more records; 256 MiB by default. */
  pendingBytes?: number;
  /** None by default. */
  compression?: Compression;
  /** The partition of a record, instead of that of its key. */
  partitioner?: (value: T, partitions: number) => number;
}

const COMMIT_BYTES = 32 << 20;

/** What stands behind a sink; tests bring their own. */
export interface KafkaSinkPorts {
  readonly client: () => KafkaAdapter;
  readonly io?: Io;
}

export function kafkaSink<T>(options: KafkaSinkOptions<T>, ports: KafkaSinkPorts): Sink<T> | TransactionalSink<T, KafkaRow> {
  const { topic, key, headers, tombstone, partitioner, compression, markerTopic = MARKER_TOPIC } = options;
  const adapter = adapterOf('kafka.sink()', options, ports.client);
  check(options);
  const io = ports.io ?? systemIo();
  const given = options.format ?? (json() as Format<T>);
  const format = typeof topic === 'string' ? (given.ofTopic?.(topic) ?? given) : given;
  const rowOptions = (): RowOptions<T> => ({
    topic,
    key,
    headers,
    tombstone,
    partitioner,
    format,
    codec: codecOf(compression),
  });
  const exactlyOnce = options.guarantee !== 'at-least-once';
  const sessions = new Sessions((context) =>
    SinkSession.open({
      adapter,
      connection: options,
      topic: typeof topic === 'string' ? topic : undefined,
      met: metBy(context),
      markerTopic: exactlyOnce ? markerTopic : undefined,
      transactionTimeout: options.transactionTimeout,
      compression,
      uid: context.uid,
      log: context.log,
    }),
  );
  if (!exactlyOnce) {
    return {
      async open(context): Promise<SinkWriter<T>> {
        await format.open?.();
        const { session, release } = await sessions.take(context);
        try {
          const rows = new Rows(rowOptions(), session.topics, { uid: context.uid, writer: Number(context.writer), now: io.clock.now });
          const producer = await session.cluster.producer(session.producerOptions);
          return new KafkaPlainWriter({ session, rows, uid: context.uid, io, producer, release, met: metBy(context) });
        } catch (error) {
          await release();
          throw error;
        }
      },
    };
  }
  return {
    transactional: true,
    pendingBytes: options.pendingBytes,
    async open(context): Promise<TransactionalWriter<T, KafkaRow>> {
      await format.open?.();
      const { session, release } = await sessions.take(context);
      const writer = new KafkaTransactionalWriter<T>({
        session,
        rows: new Rows(rowOptions(), session.topics, { uid: context.uid, writer: Number(context.writer), now: io.clock.now }),
        met: metBy(context),
        context,
        io,
        prefix: options.transactionalIdPrefix ?? context.job,
        markerTopic,
        onMarkerLost: options.onMarkerLost ?? 'fail',
        commitBytes: options.commitBytes ?? COMMIT_BYTES,
        release,
      });
      try {
        await writer.open();
      } catch (error) {
        await writer.close();
        throw error;
      }
      return {
        encode: (value, timestamp) => writer.encode(value, timestamp),
        checked: () => writer.checked(),
        commit: (checkpoint, records) => writer.commit(checkpoint, records),
        snapshot: () => writer.snapshot(),
        lastCommitted: () => writer.lastCommitted(),
        lastBegun: () => writer.lastBegun(),
        close: () => writer.close(),
      };
    },
  };
}

/** One an attempt, for as long as a writer of it is open. */
class Sessions {
  readonly #open: (context: SinkContext) => Promise<SinkSession>;
  readonly #sessions = new Map<string, { readonly session: Promise<SinkSession>; users: number }>();

  constructor(open: (context: SinkContext) => Promise<SinkSession>) {
    this.#open = open;
  }

  async take(context: SinkContext): Promise<{ readonly session: SinkSession; readonly release: () => Promise<void> }> {
    const name = `${context.job}/${context.attempt}`;
    let held = this.#sessions.get(name);
    if (held === undefined) {
      held = { session: this.#open(context), users: 0 };
      this.#sessions.set(name, held);
    }
    const taken = held;
    taken.users += 1;
    const release = async (): Promise<void> => {
      taken.users -= 1;
      if (taken.users > 0) return;
      if (this.#sessions.get(name) === taken) this.#sessions.delete(name);
      // One that could not be opened has closed itself, and who waited for it was told.
      const session = await taken.session.catch(() => undefined);
      await session?.close();
    };
    try {
      return { session: await taken.session, release };
    } catch (error) {
      await release();
      throw error;
    }
  }
}

function check<T>(options: KafkaSinkOptions<T>): void {
  const { topic, markerTopic, guarantee, onMarkerLost } = options;
  if (typeof topic !== 'function' && (typeof topic !== 'string' || topic === ''))
    throw invalid('kafka.sink() needs a topic.', 'Give its name, or a function of the record.');
  if (markerTopic !== undefined && markerTopic === topic)
    throw invalid('markerTopic of kafka.sink() is the topic of its records.', 'Give markers a topic of their own.');
  if (guarantee !== undefined && guarantee !== 'exactly-once' && guarantee !== 'at-least-once')
    throw invalid(`guarantee of kafka.sink() is '${String(guarantee)}'.`, "Give 'exactly-once' or 'at-least-once'.");
  if (onMarkerLost !== undefined && !['fail', 'commit', 'discard'].includes(onMarkerLost))
    throw invalid(`onMarkerLost of kafka.sink() is '${String(onMarkerLost)}'.`, "Give 'fail', 'commit' or 'discard'.");
  for (const name of ['commitBytes', 'pendingBytes', 'transactionTimeout'] as const) {
    const value = options[name];
    if (value !== undefined && !(Number.isInteger(value) && value > 0))
      throw invalid(`${name} of kafka.sink() is ${value}.`, 'Give a positive whole number, or leave it out.');
  }
}

function invalid(sentence: string, todo: string): MillraceError {
  return new MillraceError('OPTION_INVALID', sentence, { todo });
}
