// A writer that commits exactly once: each chunk of a checkpoint's records is one transaction together with its marker (protocols 5, 6, 7, 12).
//
// What: open = fence, then the marker. commit(n) = n's records behind those that the marker names, in chunks of `commitBytes`.
//
// Invariants:
//  W1  The fence comes before the marker is read: a transaction of an older attempt is over by then, committed or not, and none can be committed any more.
//  W2  A chunk and its marker are committed together or not at all. The marker counts records, so that the next attempt may cut its chunks elsewhere.
//  W3  After a commit that failed, what became of it is not known: the writer refuses everything but `close`, and must be opened again.
//  W4  A writer without a marker writes one at its first open, and from then on every snapshot says that it was there. Not found, it was deleted: whether what is
//      pending was committed cannot be known, and `onMarkerLost` decides.
//  W5  The transactional id has no lineage, so that a fork fences the original. An id that the snapshot's writer had, from another prefix, is fenced as well.
//  W6  What no commit could write is not in a checkpoint: `checked` holds its upload back until every topic that was met is known, and fails where brokers would.

import { MillraceError } from '../../errors.ts';
import type { SinkContext } from '../../graph/sink.ts';
import type { Io } from '../../runtime/io.ts';
import type { OutgoingRecord } from './client.ts';
import { encodeMarker, findMarker, type Marker, type MarkerPlace, markerKey, NO_MARKER } from './marker.ts';
import { bytesOf, type KafkaRow, type Rows } from './rows.ts';
import type { SharedProducer, SinkSession } from './sink-session.ts';

/** Every step at which a test can fail or kill the process, in the order of their first use. */
export const KAFKA_SINK_STEPS = [
  'sink.kafka.fence',
  'sink.kafka.marker.read',
  'sink.kafka.born',
  'sink.kafka.send',
  'sink.kafka.commit',
  'sink.kafka.committed',
  'sink.kafka.produce',
] as const;

export type OnMarkerLost = 'fail' | 'commit' | 'discard';

export interface TransactionalWriterOptions<T> {
  readonly session: SinkSession;
  readonly rows: Rows<T>;
  /** Every topic that is met is added. */
  readonly met: Set<string>;
  readonly context: SinkContext;
  readonly io: Io;
  readonly prefix: string;
  readonly markerTopic: string;
  readonly onMarkerLost: OnMarkerLost;
  readonly commitBytes: number;
  /** Gives the session back. */
  readonly release: () => Promise<void>;
}

/** Records placed in a stretch, before others have their turn. */
const SLICE = 2048;

/** What a snapshot keeps of a writer: that it was there, and where (W4). */
interface Kept {
  readonly markerTopic: string;
  readonly partition: number;
  readonly offset: string;
  readonly committed: number;
  readonly transactionalId: string;
}

export class KafkaTransactionalWriter<T> {
  readonly #options: TransactionalWriterOptions<T>;
  readonly #key: string;
  readonly #transactionalId: string;
  #producer: SharedProducer | undefined;
  #place: MarkerPlace = { partition: 0, offset: 0n };
  #marker: Marker = NO_MARKER;
  #state: 'ready' | 'doubtful' | 'closed' = 'ready';
  /** Topics that were met are being asked for. */
  #looking: Promise<void> | undefined;
  /** What is pending from before is not committed; until something new comes. */
  #discarding = false;

  constructor(options: TransactionalWriterOptions<T>) {
    const { context, prefix } = options;
    this.#options = options;
    this.#key = markerKey(context);
    this.#transactionalId = `${prefix}-${context.uid}-${context.writer}`;
  }

  async open(): Promise<void> {
    const { session, context, io, markerTopic } = this.#options;
    const kept = context.restored as Kept | undefined;
    await io.step('sink.kafka.fence');
    if (kept !== undefined && kept.transactionalId !== this.#transactionalId) await (await session.take(kept.transactionalId)).release();
    this.#producer = await session.take(this.#transactionalId);
    await io.step('sink.kafka.marker.read');
    const { cluster } = session;
    const from = kept === undefined || kept.markerTopic !== markerTopic ? undefined : { partition: kept.partition, offset: BigInt(kept.offset) };
    const { signal, log } = context;
    const { marker, place } = await findMarker({ cluster, topic: markerTopic, key: this.#key, from, signal, log, elapsed: () => io.elapsed() });
    this.#place = place;
    if (kept !== undefined && (marker === undefined || marker.whole < kept.committed)) await this.#lost(kept, marker);
    else if (marker === undefined) await this.#bear(NO_MARKER);
    else this.#marker = marker;
  }

  async #bear(marker: Marker): Promise<void> {
    await this.#options.io.step('sink.kafka.born');
    this.#state = 'doubtful';
    await this.#producer!.commit([this.#markerRecord(marker)], () => undefined);
    this.#marker = marker;
    this.#state = 'ready';
  }

  /** W4. */
  async #lost(kept: Kept, found: Marker | undefined): Promise<void> {
    const { context, markerTopic, onMarkerLost } = this.#options;
    const now = found === undefined ? 'there is no marker of it now' : `its marker says ${found.whole} now`;
    const moved = kept.markerTopic === markerTopic ? '' : ` Its markers were written to '${kept.markerTopic}' before.`;
    const said = `Writer ${context.writer} of the Kafka sink '${context.uid}' had committed checkpoint ${kept.committed}, and in the topic '${markerTopic}' ${now}.${moved}`;
    if (onMarkerLost === 'fail') {
      throw new MillraceError('MARKER_LOST', said, {
        todo: "What is pending was committed or not: compare the topic with the source, then start once with onMarkerLost: 'commit', which may write it twice, or 'discard', which may lose it.",
        uid: context.uid,
      });
    }
    context.log.warn({ uid: context.uid, writer: context.writer }, `${said} onMarkerLost: '${onMarkerLost}'.`);
    this.#discarding = onMarkerLost === 'discard';
    await this.#bear({ checkpoint: kept.committed, chunk: 0, records: 0, whole: kept.committed });
  }

  encode(value: T, timestamp: number): KafkaRow {
    const { rows } = this.#options;
    this.#discarding = false;
    const row = rows.encode(value, timestamp);
    // Looked up at once, so that few records come before the answer.
    if (rows.meeting && this.#looking === undefined) this.#look();
    return row;
  }

  #look(): void {
    const looking = this.#lookUp().finally(() => {
      this.#looking = undefined;
    });
    // Who needs it asks again.
    looking.catch(() => {});
    this.#looking = looking;
  }

  async #lookUp(): Promise<void> {
    const { session, rows, met } = this.#options;
    const topics = rows.met;
    for (const topic of topics) met.add(topic);
    await session.meet(topics);
  }

  /** W6. */
  async checked(): Promise<void> {
    const { rows } = this.#options;
    while (rows.meeting) {
      await this.#looking?.catch(() => {});
      await this.#lookUp();
      rows.check();
    }
  }

  async commit(checkpoint: number, records: Iterable<KafkaRow>): Promise<void> {
    this.#usable();
    const { context, io, session, markerTopic, rows } = this.#options;
    if (checkpoint <= this.#marker.whole) {
      throw new MillraceError('COMMIT_ID_REUSED', `Checkpoint ${checkpoint} was to be committed after ${this.#marker.whole}.`, {
        todo: 'Begin anew with restore none, or with a checkpoint directory of its own.',
        uid: context.uid,
      });
    }
    const begun = io.elapsed();
    const { partition } = this.#place;
    const [ends] = await Promise.all([session.cluster.offsets(markerTopic, [partition], 'latest', false), session.topics.refresh([], context.uid)]);
    // W2. Cut short, a checkpoint goes on behind what the marker names.
    let done = this.#marker.checkpoint === checkpoint ? this.#marker.records : 0;
    let chunk = this.#marker.checkpoint === checkpoint ? this.#marker.chunk : 0;
    if (this.#discarding) await this.#discard(checkpoint, records, done);
    else {
      let skip = done;
      let outgoing: OutgoingRecord[] = [];
      let bytes = 0;
      let taken = 0;
      for (const row of records) {
        taken += 1;
        if (taken % SLICE === 0) await nextTurn();
        if (skip > 0) {
          skip -= 1;
          continue;
        }
        if (!rows.knows(row)) await session.topics.refresh([rows.topicOf(row)], context.uid);
        const size = bytesOf(row);
        if (bytes + size > this.#options.commitBytes && outgoing.length > 0) {
          done += outgoing.length;
          chunk += 1;
          await this.#send(outgoing, bytes, { checkpoint, chunk, records: done, whole: this.#marker.whole });
          outgoing = [];
          bytes = 0;
        }
        outgoing.push(rows.outgoing(row, io.clock.now()));
        bytes += size;
      }
      await this.#send(outgoing, bytes, { checkpoint, chunk: chunk + 1, records: done + outgoing.length, whole: checkpoint });
    }
    // Its marker cannot lie in front of what was the end before.
    const offset = ends.get(partition);
    if (offset !== undefined && offset > this.#place.offset) this.#place = { partition, offset };
    context.metrics.histogram('commitMs').record(io.elapsed() - begun);
  }

  async #discard(checkpoint: number, records: Iterable<KafkaRow>, done: number): Promise<void> {
    const { context } = this.#options;
    let count = 0;
    for (const _ of records) count += 1;
    context.log.warn(
      { uid: context.uid, writer: context.writer, checkpoint, records: count - done },
      "Records that were pending are discarded: onMarkerLost is 'discard', and they may not have been written before.",
    );
    await this.#send([], 0, { checkpoint, chunk: 1, records: count, whole: checkpoint });
  }

  async #send(records: OutgoingRecord[], bytes: number, marker: Marker): Promise<void> {
    const { context, io } = this.#options;
    const count = records.length;
    this.#state = 'doubtful';
    try {
      await io.step('sink.kafka.send');
      records.push(this.#markerRecord(marker));
      await this.#producer!.commit(records, () => io.step('sink.kafka.commit'));
      await io.step('sink.kafka.committed');
    } catch (error) {
      throw this.#named(error);
    } finally {
      records.length = count;
    }
    this.#marker = marker;
    this.#state = 'ready';
    context.metrics.counter('commitChunks').inc();
    context.metrics.counter('commitRecords').inc(count);
    context.metrics.counter('commitBytes').inc(bytes);
  }

  #markerRecord(marker: Marker): OutgoingRecord {
    const { io, markerTopic } = this.#options;
    return { topic: markerTopic, partition: this.#place.partition, key: Buffer.from(this.#key), value: encodeMarker(marker), timestamp: io.clock.now() };
  }

  snapshot(): Kept {
    this.#discarding = false;
    const { partition, offset } = this.#place;
    const { markerTopic } = this.#options;
    return { markerTopic, partition, offset: String(offset), committed: this.#marker.whole, transactionalId: this.#transactionalId };
  }

  async lastCommitted(): Promise<number> {
    this.#usable();
    return this.#marker.whole;
  }

  /** Of a checkpoint that was cut short the first chunks can be read already (W2). */
  async lastBegun(): Promise<number> {
    this.#usable();
    const { checkpoint, chunk, whole } = this.#marker;
    return chunk > 0 ? checkpoint : whole;
  }

  async close(): Promise<void> {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    try {
      await this.#producer?.release();
    } finally {
      await this.#options.release();
    }
  }

  #usable(): void {
    if (this.#state === 'ready') return;
    const sentence = this.#state === 'closed' ? 'The Kafka writer is closed.' : 'The outcome of an earlier commit of this Kafka writer is unknown.';
    throw new MillraceError('SINK_FAILED', sentence, { todo: 'Open the sink again.', uid: this.#options.context.uid });
  }

  /** Who was fenced may only have been stopped for longer than a transaction lasts: a new attempt can tell, by fencing in its turn. */
  #named(error: unknown): unknown {
    if (!(error instanceof MillraceError) || error.code !== 'KAFKA_FENCED') return error;
    const { context } = this.#options;
    return new MillraceError('KAFKA_FENCED', `Writer ${context.writer} of the Kafka sink '${context.uid}' was fenced: ${error.sentence}`, {
      todo: 'A transaction was open for longer than its timeout, or another job has the same name (or transactionalIdPrefix) and uid: then give one of them another.',
      uid: context.uid,
      cause: error,
      retryable: true,
    });
  }
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
