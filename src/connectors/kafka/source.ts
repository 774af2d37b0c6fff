// The Kafka source: a split for each partition, offsets in our checkpoints, no consumer group on the data path.
//
// What: discovery.ts finds partitions and says where each begins and ends; reader.ts reads one of them; fetcher.ts takes records from the brokers for all of them;
// offset-loss.ts decides what is done about records that are gone. A source object holds nothing of a run but the connection that its reads share (lease.ts) and the
// offsets that are being committed for monitoring.
//
// A restart without a checkpoint begins anew, as a first start does: `from: 'latest'` is then another offset than before. The first checkpoint stores what it was.

import { MillraceError } from '../../errors.ts';
import type { Source, SourceBatch, SourceContext } from '../../graph/source.ts';
import { type Io, systemIo } from '../../runtime/io.ts';
import { type Format, json } from '../formats.ts';
import type { KafkaAdapter } from './client.ts';
import { adapterOf, connectTo, type KafkaConnection } from './connection.ts';
import { BEGUN, discover, type From, firstLook, type KafkaSplit, type Reading, splitId, type Until } from './discovery.ts';
import { GroupOffsets } from './group-offsets.ts';
import { SharedConnection } from './lease.ts';
import type { LossPolicy } from './offset-loss.ts';
import { Pause } from './pause.ts';
import { type KafkaPosition, PartitionRead } from './reader.ts';
import { type DecoderOf, type KafkaRecord, recordsOf, valuesOf } from './records.ts';

/** What `kafka.source()` and `kafka.records()` read. */
export interface KafkaSourceOptions<T> extends KafkaConnection {
  /** A name, several, or a pattern that names are tested with; topics that are created later and match are read too. */
  topic: string | string[] | RegExp;
  /** Of the values; `json()` by default. */
  format?: Format<T>;
  /**
   * Where a first start begins: at the oldest records, behind the newest, at what `groupId` has committed, at the first record of a time (epoch milliseconds), or at
   * offsets by partition. 'earliest' by default. Partitions that appear later are read from their oldest record.
   */
  from?: 'earliest' | 'latest' | 'group' | { timestamp: number } | { offsets: Record<number, string> };
  /** Makes it bounded: up to the end as it is at the start, up to the first record of a time, or up to offsets by partition (those themselves are not read). */
  until?: 'end' | { timestamp: number } | { offsets: Record<number, string> };
  /** Offsets of completed checkpoints are committed under this name, for monitoring only. */
  groupId?: string;
  /** What is done where the records to be read next are gone. 'fail' by default. */
  onOffsetLost?: 'fail' | 'earliest' | 'latest';
  /** How often new partitions and topics are looked for, ms; 10 s by default. */
  discoverEvery?: number;
}

const DISCOVER_EVERY_MS = 10_000;

/** What stands behind a source; tests bring their own. */
export interface KafkaSourcePorts {
  readonly client: () => KafkaAdapter;
  readonly io?: Io | undefined;
}

/** Values; tombstones are passed over. */
export function kafkaSource<T>(options: KafkaSourceOptions<T>, ports: KafkaSourcePorts): Source<T, KafkaSplit, KafkaPosition> {
  return sourceOf('kafka.source()', options, valuesOf(formatOf(options)), ports);
}

/** Whole records, tombstones among them. */
export function kafkaRecords<T>(options: KafkaSourceOptions<T>, ports: KafkaSourcePorts): Source<KafkaRecord<T | null>, KafkaSplit, KafkaPosition> {
  return sourceOf('kafka.records()', options, recordsOf(formatOf(options)), ports);
}

function formatOf<T>({ format }: KafkaSourceOptions<T>): Format<T> {
  return format ?? (json() as Format<T>);
}

function sourceOf<T>(
  who: string,
  options: KafkaSourceOptions<unknown>,
  decoderOf: DecoderOf<T>,
  ports: KafkaSourcePorts,
): Source<T, KafkaSplit, KafkaPosition> {
  const io = ports.io ?? systemIo();
  const adapter = adapterOf(who, options, ports.client);
  const reading = readingOf(who, options);
  const { until, groupId, policy } = reading;
  const everyMs = options.discoverEvery ?? DISCOVER_EVERY_MS;
  const shared = new SharedConnection((log) => connectTo(adapter, options, log), io);
  const committed = groupId === undefined ? undefined : new GroupOffsets(groupId, shared);

  async function allSplits(context: SourceContext): Promise<KafkaSplit[]> {
    const lease = await shared.acquire(context);
    if (lease === undefined) return [];
    try {
      return await firstLook(lease.cluster, reading, context, io);
    } finally {
      lease.release();
    }
  }

  async function* splitsAsTheyCome(context: SourceContext): AsyncGenerator<KafkaSplit[]> {
    const lease = await shared.acquire(context);
    if (lease === undefined) return;
    const pause = new Pause(io.clock, context.signal);
    lease.onGrown(() => pause.wake());
    try {
      yield* discover(lease.cluster, reading, context, { io, pause, everyMs });
    } finally {
      pause.end();
      lease.release();
    }
  }

  return {
    bounded: until !== undefined,
    splits: (context) => (until === undefined ? splitsAsTheyCome(context) : allSplits(context)),
    splitId,
    async *read(split, from, context): AsyncGenerator<SourceBatch<T, KafkaPosition>> {
      if (splitId(split) === splitId(BEGUN)) return;
      const lease = await shared.acquire(context);
      if (lease === undefined) return;
      committed?.speaksWith(context);
      const pause = new Pause(io.clock, context.signal);
      try {
        const read = new PartitionRead(split, from, { until, policy, decoder: decoderOf(split.topic) }, context, {
          cluster: lease.cluster,
          fetcher: lease.fetcher,
          pause,
        });
        yield* read.batches((behind) => context.metrics.gauge(`lag.${splitId(split)}`, behind));
      } finally {
        pause.end();
        lease.release();
      }
    },
    ...(committed === undefined ? {} : { onCheckpointComplete: (positions: Map<string, KafkaPosition>) => committed.commit(positions) }),
  };
}

function readingOf(who: string, options: KafkaSourceOptions<unknown>): Reading {
  const { topic, from = 'earliest', until, groupId, onOffsetLost = 'fail', discoverEvery } = options;
  const topics =
    topic instanceof RegExp ? new RegExp(topic.source, topic.flags.replace(/[gy]/g, '')) : typeof topic === 'string' ? [topic] : [...(topic ?? [])];
  if (Array.isArray(topics) && (topics.length === 0 || topics.some((name) => typeof name !== 'string' || name === ''))) {
    throw invalid(`${who} needs a topic.`, 'Give a name, several, or a pattern.');
  }
  for (const [name, given] of [
    ['from', from],
    ['until', until],
  ] as const) {
    if (given === undefined || typeof given === 'string') continue;
    if ('timestamp' in given && (!Number.isFinite(given.timestamp) || given.timestamp < 0))
      throw invalid(`${name}: ${given.timestamp} is no time.`, 'Give epoch milliseconds.');
    if (!('offsets' in given)) continue;
    for (const [partition, offset] of Object.entries(given.offsets)) {
      if (!/^\d+$/.test(partition) || !/^\d+$/.test(String(offset))) {
        throw invalid(`${name}: '${offset}' is no offset, or '${partition}' no partition.`, "Give decimal numbers: { offsets: { 0: '1200' } }.");
      }
    }
    if (!Array.isArray(topics) || topics.length > 1)
      throw invalid(`${name}: offsets are of one topic, and ${who} reads several.`, 'Give each topic a source of its own.');
  }
  if (typeof from === 'string' && !['earliest', 'latest', 'group'].includes(from))
    throw invalid(`from: '${from}' is nothing to begin at.`, "Give 'earliest', 'latest', 'group', a timestamp or offsets.");
  if (typeof until === 'string' && until !== 'end') throw invalid(`until: '${until}' is nothing to end at.`, "Give 'end', a timestamp or offsets.");
  if (!['fail', 'earliest', 'latest'].includes(onOffsetLost))
    throw invalid(`onOffsetLost: '${onOffsetLost}' is no policy.`, "Give 'fail', 'earliest' or 'latest'.");
  if (groupId !== undefined && (typeof groupId !== 'string' || groupId === '')) throw invalid('groupId must be a name.', 'Give a name, or leave it out.');
  if (from === 'group' && groupId === undefined) throw invalid("from: 'group' needs the groupId whose offsets are meant.", 'Give groupId.');
  if (discoverEvery !== undefined && !(Number.isFinite(discoverEvery) && discoverEvery > 0))
    throw invalid(`discoverEvery: ${discoverEvery} is no time.`, 'Give milliseconds above 0.');
  return { topics, from: from as From, until: until as Until | undefined, groupId, policy: onOffsetLost as LossPolicy };
}

function invalid(sentence: string, todo: string): MillraceError {
  return new MillraceError('OPTION_INVALID', sentence, { todo });
}
