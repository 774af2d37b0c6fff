// Discovery: which partitions a source reads, from where and until where.
//
// What: `look` asks the brokers once, and `discover` goes on asking. What is decided is in the splits, so that it is stored with them: a bounded read ends at the same
// offsets after a restore, and one from 'latest' that was stored before its first record begins where it would have.
//
// Invariants:
//  D1  `from` holds for the partitions that the first look of a run without a restored split finds. Every other partition is read from its earliest record: it was
//      created while the job ran, or while it was down.
//  D2  A partition is handed out once; the runtime remembers which.
//  D3  A partition to be read from its earliest record has no `start`: what retention took before the first fetch was not lost by us.
//  D4  The first look fails where the brokers or the topics cannot be had; later ones are tried again, and that is said once.
//  D5  A pattern that no topic matches at first has begun all the same: `BEGUN`, a split without records that is read to its end at once, says so in every snapshot, so that
//      what appears later is read from its first record after a restore, too. Markers of sinks are never records: a pattern passes over their topic.

import { MillraceError, messageOf } from '../../errors.ts';
import type { SourceContext } from '../../graph/source.ts';
import type { Io } from '../../runtime/io.ts';
import type { Cluster, TopicMetadata } from './client.ts';
import { forbidden } from './errors.ts';
import { MARKER_TOPIC } from './marker.ts';
import type { LossPolicy } from './offset-loss.ts';
import { Pause } from './pause.ts';

export type From = 'earliest' | 'latest' | 'group' | { readonly timestamp: number } | { readonly offsets: Readonly<Record<number, string>> };
export type Until = 'end' | { readonly timestamp: number } | { readonly offsets: Readonly<Record<number, string>> };

/** A partition; plain data. */
export interface KafkaSplit {
  readonly topic: string;
  readonly partition: number;
  /** Of the topic, where the brokers know ids. */
  readonly id?: string;
  /** The first offset to be read; none: the earliest there is (D3). */
  readonly start?: string;
  /** Of a bounded read: the first offset not to be read. */
  readonly end?: string;
}

export interface Reading {
  readonly topics: readonly string[] | RegExp;
  readonly from: From;
  readonly until: Until | undefined;
  readonly groupId: string | undefined;
  readonly policy: LossPolicy;
}

/** D5. */
export const BEGUN: KafkaSplit = { topic: '', partition: 0 };

/** How long the first look waits for a topic that was created just now. */
const APPEARS_MS = 3_000;
const LOOK_AGAIN_MS = 250;

export const splitId = ({ topic, partition }: Pick<KafkaSplit, 'topic' | 'partition'>): string => `${topic}/${partition}`;

/** Names of topics have no slash. */
export function ofSplitId(id: string): { readonly topic: string; readonly partition: number } {
  const slash = id.lastIndexOf('/');
  return { topic: id.slice(0, slash), partition: Number(id.slice(slash + 1)) };
}

/** Pure: the partitions that have not been handed out, by topic. */
export function unseen(found: ReadonlyMap<string, TopicMetadata>, seen: ReadonlySet<string>): Map<TopicMetadata, number[]> {
  const fresh = new Map<TopicMetadata, number[]>();
  for (const meta of found.values()) {
    const partitions = meta.partitions.map(({ partition }) => partition).filter((partition) => !seen.has(splitId({ topic: meta.topic, partition })));
    if (partitions.length > 0)
      fresh.set(
        meta,
        partitions.sort((a, b) => a - b),
      );
  }
  return fresh;
}

/** Pure: where the partitions of a topic begin, as far as it can be said without asking; undefined: from the earliest record. */
export function startOf(partition: number, from: From, facts: { readonly first: boolean; readonly asked: ReadonlyMap<number, bigint> }): bigint | undefined {
  if (!facts.first || from === 'earliest') return undefined;
  if (typeof from === 'object' && 'offsets' in from) {
    const given = from.offsets[partition];
    return given === undefined ? undefined : BigInt(given);
  }
  return facts.asked.get(partition);
}

/** Pure: partitions that are named and do not exist; a typing error, not a wish. */
export function unknownPartitions(named: Readonly<Record<number, string>>, { partitions }: TopicMetadata): number[] {
  const there = new Set(partitions.map(({ partition }) => partition));
  return Object.keys(named)
    .map(Number)
    .filter((partition) => !there.has(partition));
}

/** Whether a question to the brokers is to be asked again. A topic that is gone while we ask for it is the fetcher's to find out. */
export function mayPass(error: unknown): boolean {
  return error instanceof MillraceError && (error.retryable || error.code === 'KAFKA_TOPIC_MISSING');
}

/** One look: the partitions that are new, with where to begin and to end. */
export async function look(cluster: Cluster, reading: Reading, facts: { readonly seen: ReadonlySet<string>; readonly first: boolean }): Promise<KafkaSplit[]> {
  const { topics, until } = reading;
  const names = Array.isArray(topics)
    ? (topics as readonly string[])
    : (await cluster.topics()).filter((name) => name !== MARKER_TOPIC && (topics as RegExp).test(name));
  if (names.length === 0) return [];
  const splits: KafkaSplit[] = [];
  for (const [meta, partitions] of unseen(await cluster.metadata(names), facts.seen)) {
    const { topic, id } = meta;
    if (facts.first) for (const named of [reading.from, until]) refuseUnknown(named, meta);
    const wanted = typeof until === 'object' && 'offsets' in until ? partitions.filter((partition) => until.offsets[partition] !== undefined) : partitions;
    const asked = facts.first ? await startsAsked(cluster, reading, topic, wanted) : new Map<number, bigint>();
    const ends = await endsOf(cluster, until, topic, wanted);
    for (const partition of wanted) {
      const start = startOf(partition, reading.from, { first: facts.first, asked });
      const end = ends.get(partition);
      splits.push({
        topic,
        partition,
        ...(id === undefined ? {} : { id }),
        ...(start === undefined ? {} : { start: String(start) }),
        ...(end === undefined ? {} : { end: String(end) }),
      });
    }
  }
  return splits;
}

function refuseUnknown(named: From | Until | undefined, meta: TopicMetadata): void {
  if (typeof named !== 'object' || !('offsets' in named)) return;
  const unknown = unknownPartitions(named.offsets, meta);
  if (unknown.length === 0) return;
  throw new MillraceError('OPTION_INVALID', `The topic '${meta.topic}' has no partition ${unknown.join(', ')}, for which the source is given offsets.`, {
    todo: `It has ${meta.partitions.length} partitions, from 0.`,
  });
}

/** What `from` needs to be asked of the brokers. */
async function startsAsked(
  cluster: Cluster,
  { from, groupId, policy }: Reading,
  topic: string,
  partitions: readonly number[],
): Promise<ReadonlyMap<number, bigint>> {
  if (from === 'latest') return cluster.offsets(topic, partitions, 'stable', true);
  if (from === 'group') return groupStarts(cluster, groupId!, topic, partitions, policy);
  if (typeof from === 'object' && 'timestamp' in from) return cluster.offsets(topic, partitions, { timestamp: from.timestamp }, true);
  return new Map();
}

/** A partition that the group has not committed was never read by it; where it has committed none, it is another group or its offsets have expired. */
async function groupStarts(
  cluster: Cluster,
  group: string,
  topic: string,
  partitions: readonly number[],
  policy: LossPolicy,
): Promise<ReadonlyMap<number, bigint>> {
  const committed = await cluster.groupOffsets(group, topic);
  if (committed.size > 0 || policy === 'earliest') return committed;
  if (policy === 'latest') return cluster.offsets(topic, partitions, 'stable', true);
  throw new MillraceError(
    'KAFKA_OFFSET_LOST',
    `The group '${group}' has no committed offset in any partition of '${topic}': the name is another one, or they have expired.`,
    {
      todo: "Correct groupId, or say where to begin without them by onOffsetLost 'earliest' or 'latest'.",
    },
  );
}

/** Where a bounded read ends in these partitions. The high watermark, not the last stable offset: what was committed just now may still wait for its marker there. */
export async function endsOf(cluster: Cluster, until: Until | undefined, topic: string, partitions: readonly number[]): Promise<ReadonlyMap<number, bigint>> {
  if (until === undefined || partitions.length === 0) return new Map();
  if (until === 'end') return cluster.offsets(topic, partitions, 'latest', false);
  if ('timestamp' in until) return cluster.offsets(topic, partitions, { timestamp: until.timestamp }, false);
  return new Map(partitions.flatMap((partition) => (until.offsets[partition] === undefined ? [] : [[partition, BigInt(until.offsets[partition]!)] as const])));
}

/** The first look of a run (D4): waits a little for a topic that has been created just now. */
export async function firstLook(cluster: Cluster, reading: Reading, context: SourceContext, io: Io): Promise<KafkaSplit[]> {
  const allowed = reading.topics instanceof RegExp ? undefined : checkRights(cluster, reading.topics as readonly string[], context.uid);
  allowed?.catch(() => {});
  const pause = new Pause(io.clock, context.signal);
  const until = io.clock.now() + APPEARS_MS;
  try {
    for (;;) {
      const looking = look(cluster, reading, { seen: context.known, first: context.known.size === 0 });
      // What fails for the lack of a right is told by its name.
      looking.catch(() => {});
      await allowed;
      const splits = await looking;
      const missing = missingTopics(reading.topics, splits, context.known);
      if (missing.length === 0 || context.signal.aborted) return splits;
      // Its partitions may be known and asked for no more, so that none of it is a split: metadata has the last word.
      const there = await cluster.metadata(missing);
      const absent = missing.filter((topic) => !there.has(topic));
      if (absent.length === 0) {
        if (missing.every((topic) => there.get(topic)!.partitions.length > 0)) return splits;
      } else if (io.clock.now() >= until) {
        throw new MillraceError('KAFKA_TOPIC_MISSING', `There is no topic ${absent.map((topic) => `'${topic}'`).join(', ')}.`, {
          todo: 'Create it, or correct its name; a pattern waits for topics that match it.',
          uid: context.uid,
        });
      }
      await pause.wait(LOOK_AGAIN_MS);
    }
  } finally {
    pause.end();
  }
}

/** The brokers would say so of the first fetch, of one topic; here it is all of them. */
async function checkRights(cluster: Cluster, topics: readonly string[], uid: string): Promise<void> {
  const missing = [...(await cluster.rights(topics))].filter(([, { read }]) => !read).map(([topic]) => `Read on the topic '${topic}'`);
  if (missing.length > 0) throw forbidden(`The source '${uid}'`, missing, uid);
}

/** Pure: named topics of which there is no split, neither new nor known. */
export function missingTopics(topics: readonly string[] | RegExp, splits: readonly KafkaSplit[], known: ReadonlySet<string>): string[] {
  if (topics instanceof RegExp) return [];
  const there = new Set(splits.map(({ topic }) => topic));
  for (const id of known) there.add(ofSplitId(id).topic);
  return topics.filter((topic) => !there.has(topic));
}

/** Goes on looking until the attempt ends; `pause` may be woken where there is something new to see. */
export async function* discover(
  cluster: Cluster,
  reading: Reading,
  context: SourceContext,
  facts: { readonly io: Io; readonly pause: Pause; readonly everyMs: number },
): AsyncGenerator<KafkaSplit[]> {
  const { io, pause, everyMs } = facts;
  const seen = new Set(context.known);
  let found = await firstLook(cluster, reading, context, io);
  let failing = false;
  // Also where there is none: instances that have no share are told so.
  yield found.length === 0 && seen.size === 0 ? [BEGUN] : found;
  while (!context.signal.aborted) {
    for (const split of found) seen.add(splitId(split));
    await pause.wait(everyMs);
    if (context.signal.aborted) return;
    try {
      found = await look(cluster, reading, { seen, first: false });
      if (failing) context.log.info({ uid: context.uid }, 'New partitions are looked for again.');
      failing = false;
    } catch (error) {
      found = [];
      if (context.signal.aborted) return;
      if (!mayPass(error)) throw error;
      if (!failing)
        context.log.warn({ uid: context.uid, error: messageOf(error) }, 'New partitions cannot be looked for at present; what is known is read on.');
      failing = true;
    }
    if (found.length > 0) yield found;
  }
}
