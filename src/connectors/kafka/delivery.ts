// Records on their way to brokers: batches with sequence numbers, so that each is stored once and in order, whatever is lost in between.
//
// What: each partition is a lane: records queue in it, and one batch of it is under way. What comes meanwhile becomes the next batch, so the slower the brokers, the
// larger the batches. Lanes of one leader go in one request, as far as it has room.
//
// Invariants:
//  D1  a lane has one batch under way. It is sent again as it is, bytes and sequence numbers, until it is stored: the broker knows it when it comes a second time.
//  D2  records are stored in each partition in the order of `send`.
//  D3  after an error that is not transient, or that lasted too long, nothing is sent any more: what is behind a gap in the sequence cannot be stored. Every `send`
//      under way and to come throws it; a new producer begins anew.

import { pause } from '../pause.ts';
import { pauseBefore } from './attempts.ts';
import type { OutgoingRecord, ProducerOptions } from './client.ts';
import { type Codec, codecOf } from './compression.ts';
import type { Directory } from './directory.ts';
import { answered, closed, KafkaError } from './errors.ts';
import { bytesOf, encodeBatch } from './record-batch.ts';
import { type ProducedAnswer, produceCall } from './requests.ts';

/** Below `max.message.bytes`, which is 1,048,588 unless somebody changed it. */
const REQUEST_BYTES = 1_000_000;
const DUPLICATE_SEQUENCE_NUMBER = 46;

/** Of one `send`. */
interface Ticket {
  left: number;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

interface Parcel {
  readonly records: readonly OutgoingRecord[];
  readonly ticket: Ticket;
  /** How many are in batches. */
  taken: number;
}

interface Lane {
  readonly topic: string;
  readonly partition: number;
  readonly queue: Parcel[];
  sequence: number;
  underWay: Batch | undefined;
  /** While a `send` is sorted. */
  gathered: OutgoingRecord[] | undefined;
}

interface Batch {
  readonly lane: Lane;
  readonly topic: string;
  readonly partition: number;
  readonly bytes: Buffer;
  readonly tickets: readonly { readonly ticket: Ticket; readonly records: number }[];
  readonly until: number;
  tries: number;
}

export class Delivery {
  readonly #directory: Directory;
  readonly #transactionalId: string | undefined;
  readonly #codec: Codec;
  readonly #requestBytes: number;
  readonly #batchBytes: (topic: string) => number | undefined;
  readonly #topics = new Map<string, Lane[]>();
  /** With records, and nothing under way. */
  readonly #ready = new Set<Lane>();
  readonly #tickets = new Set<Ticket>();
  #producerId = -1n;
  #epoch = -1;
  #pumping = false;
  #failed: unknown;

  constructor(directory: Directory, options: ProducerOptions & { readonly transactionalId: string | undefined }) {
    this.#directory = directory;
    this.#transactionalId = options.transactionalId;
    this.#codec = codecOf(options.compression);
    this.#requestBytes = options.requestBytes ?? REQUEST_BYTES;
    this.#batchBytes = options.batchBytes ?? (() => undefined);
  }

  /** Before the first `send`. */
  begin(producerId: bigint, epoch: number): void {
    this.#producerId = producerId;
    this.#epoch = epoch;
  }

  send(records: readonly OutgoingRecord[]): Promise<void> {
    if (this.#failed !== undefined) return Promise.reject(this.#failed);
    if (records.length === 0) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const ticket: Ticket = { left: records.length, resolve, reject };
      this.#tickets.add(ticket);
      this.#sort(records, ticket);
      this.#pumpSoon();
    });
  }

  close(): void {
    this.#fail(closed());
  }

  #sort(records: readonly OutgoingRecord[], ticket: Ticket): void {
    const lanes: Lane[] = [];
    let topic = '';
    let known: Lane[] = [];
    for (const record of records) {
      if (record.topic !== topic) {
        topic = record.topic;
        known = this.#topics.get(topic) ?? [];
        this.#topics.set(topic, known);
      }
      let lane = known[record.partition];
      if (lane === undefined) {
        lane = { topic, partition: record.partition, queue: [], sequence: 0, underWay: undefined, gathered: undefined };
        known[record.partition] = lane;
      }
      if (lane.gathered === undefined) {
        lane.gathered = [];
        lanes.push(lane);
      }
      lane.gathered.push(record);
    }
    for (const lane of lanes) {
      lane.queue.push({ records: lane.gathered!, ticket, taken: 0 });
      lane.gathered = undefined;
      if (lane.underWay === undefined) this.#ready.add(lane);
    }
  }

  /** After the step that sends: what it sends in several calls goes together. */
  #pumpSoon(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    queueMicrotask(() => {
      this.#pumping = false;
      if (this.#failed !== undefined || this.#ready.size === 0) return;
      const batches: Batch[] = [];
      try {
        for (const lane of this.#ready) batches.push(this.#batchOf(lane));
      } catch (error) {
        return this.#fail(error);
      }
      this.#ready.clear();
      void this.#deliver(batches);
    });
  }

  #batchOf(lane: Lane): Batch {
    const records: OutgoingRecord[] = [];
    const tickets: { ticket: Ticket; records: number }[] = [];
    const most = Math.min(this.#requestBytes, this.#batchBytes(lane.topic) ?? this.#requestBytes);
    let bytes = 0;
    let full = false;
    while (!full && lane.queue.length > 0) {
      const parcel = lane.queue[0]!;
      const before = parcel.taken;
      while (parcel.taken < parcel.records.length) {
        const record = parcel.records[parcel.taken]!;
        const more = bytesOf(record);
        // One that is too large by itself goes alone, for the broker to say so.
        full = bytes > 0 && bytes + more > most;
        if (full) break;
        bytes += more;
        records.push(record);
        parcel.taken++;
      }
      if (parcel.taken > before) tickets.push({ ticket: parcel.ticket, records: parcel.taken - before });
      if (parcel.taken === parcel.records.length) lane.queue.shift();
    }
    const encoded = encodeBatch(records, bytes, {
      producerId: this.#producerId,
      epoch: this.#epoch,
      sequence: lane.sequence,
      transactional: this.#transactionalId !== undefined,
      codec: this.#codec,
    });
    // Behind 2^31 − 1 comes 0.
    lane.sequence = (lane.sequence + records.length) & 0x7fffffff;
    const { topic, partition } = lane;
    const batch: Batch = { lane, topic, partition, bytes: encoded, tickets, until: Date.now() + this.#directory.timeoutMs, tries: 0 };
    lane.underWay = batch;
    return batch;
  }

  /** To their leaders, each in requests that are not too large. Never throws. */
  async #deliver(batches: readonly Batch[]): Promise<void> {
    const requests = new Map<number, Batch[][]>();
    const homeless: Batch[] = [];
    let reason: unknown;
    for (const batch of batches) {
      let leader = this.#directory.knownLeader(batch.topic, batch.partition);
      if (leader === undefined) {
        try {
          leader = await this.#directory.leader(batch.topic, batch.partition);
        } catch (error) {
          homeless.push(batch);
          reason = error;
          continue;
        }
      }
      const of = requests.get(leader) ?? [];
      requests.set(leader, of);
      const last = of.at(-1);
      const size = last?.reduce((sum, { bytes }) => sum + bytes.length, 0) ?? 0;
      if (last !== undefined && size + batch.bytes.length <= this.#requestBytes) last.push(batch);
      else of.push([batch]);
    }
    if (homeless.length > 0) this.#again(homeless, reason);
    for (const [leader, of] of requests) for (const one of of) void this.#request(leader, one);
  }

  async #request(leader: number, batches: readonly Batch[]): Promise<void> {
    const { brokers } = this.#directory;
    let answers: readonly ProducedAnswer[];
    try {
      // The broker waits for its replicas, and is to give up before we do.
      answers = await brokers.ask(leader, 'produce', produceCall(this.#transactionalId ?? null, brokers.requestMs, batches), 500);
    } catch (error) {
      return this.#again(batches, error);
    }
    const again: Batch[] = [];
    let reason: KafkaError | undefined;
    for (const batch of batches) {
      const answer = answers.find(({ topic, partition }) => topic === batch.topic && partition === batch.partition);
      if (answer !== undefined && (answer.error === 0 || answer.error === DUPLICATE_SEQUENCE_NUMBER)) {
        this.#stored(batch);
      } else {
        again.push(batch);
        const error = answered(answer?.error ?? -1, `records for '${batch.topic}' ${batch.partition}`, answer?.message);
        // What cannot pass is told rather than what can.
        if (reason === undefined || error.again === undefined) reason = error;
      }
    }
    if (again.length > 0) this.#again(again, reason);
    if (this.#ready.size > 0) this.#pumpSoon();
  }

  #stored(batch: Batch): void {
    const { lane, tickets } = batch;
    lane.underWay = undefined;
    if (lane.queue.length > 0) this.#ready.add(lane);
    for (const { ticket, records } of tickets) {
      ticket.left -= records;
      if (ticket.left === 0) {
        this.#tickets.delete(ticket);
        ticket.resolve();
      }
    }
  }

  /** D1, or D3. */
  #again(batches: readonly Batch[], error: unknown): void {
    if (this.#failed !== undefined) return;
    const { brokers } = this.#directory;
    const tries = Math.max(...batches.map((batch) => batch.tries++));
    const pauseMs = pauseBefore(tries);
    const late = batches.some(({ until }) => Date.now() + pauseMs > until);
    if (brokers.closed) {
      this.#fail(closed());
    } else if (late || !(error instanceof KafkaError) || error.again === undefined) {
      this.#fail(error);
    } else {
      void pause(pauseMs, brokers.signal)
        .then(() => (error.again === 'metadata' ? this.#directory.refresh() : undefined))
        .then(() => (this.#failed === undefined ? this.#deliver(batches) : undefined));
    }
  }

  #fail(error: unknown): void {
    if (this.#failed !== undefined) return;
    this.#failed = error;
    this.#topics.clear();
    this.#ready.clear();
    for (const ticket of this.#tickets) ticket.reject(error);
    this.#tickets.clear();
  }
}
