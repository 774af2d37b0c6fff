// The fetcher: takes records of all partitions that a source reads in this process from the brokers that lead them.
//
// What: a read subscribes to its partition and takes one batch after the other. The fetcher knows who leads what, keeps one request under way with each broker, and
// goes on after lost connections, changes of leader and restarts of brokers, for as long as it takes: a source does not fail because brokers are away, as a Flink
// job would not. It is said once when that begins, and once when it is over.
//
// Who owns what: the fetcher owns leaders, requests and one batch ahead for each partition; the read owns its position and decides what is done about records that are
// gone (offset-loss.ts). The cluster belongs to the lease (lease.ts).
//
// Invariants:
//  F1  One request is under way with a broker at most, only for partitions that want records: those with no batch waiting. So a read that is not asked for records
//      costs one batch of memory, and no requests.
//  F2  A request waits long at the broker only where every partition that the broker leads takes part, and not at first; else one that becomes free would wait behind it.
//  F3  What arrives for a partition that was left or moved to another offset meanwhile is dropped: a request carries the lane's turn.
//  F4  An answer about a partition concerns that partition only. What a request as a whole meets concerns all partitions in it.
//  F5  Metadata is asked for by one loop, at once for a partition that has lost its leader and then with growing waits for as long as it finds none.
//  F6  A topic is gone when answers about it say so for GONE_AFTER_MS: brokers learn of topics one after the other. Another id is another topic at once. A log that ends
//      in front of where it had gone to is shortened after as long: a new leader may not have heard of the newest records yet.

import { codeOf, MillraceError, messageOf } from '../../errors.ts';
import type { Logger } from '../../graph/context.ts';
import type { Io } from '../../runtime/io.ts';
import { type Waits, waitBefore } from '../../time/backoff.ts';
import type { Cluster, FetchedPartition, FetchedRecord, TopicMetadata } from './client.ts';
import { Pause } from './pause.ts';

export interface FetchedBatch {
  readonly kind: 'records';
  readonly records: readonly FetchedRecord[];
  /** Behind everything that was looked at, also where there are no records (gaps of transactions). */
  readonly next: bigint;
}

/** What a read is given for its partition. After anything but records nothing is fetched until it seeks. */
export type Taken =
  | FetchedBatch
  | { readonly kind: 'out of range'; readonly error: unknown }
  | { readonly kind: 'recreated'; readonly id: string | undefined }
  | { readonly kind: 'gone' }
  /** The log ends here for good, in front of where it is to be read to. */
  | { readonly kind: 'shortened'; readonly end: bigint }
  /** Trying again does not help. */
  | { readonly kind: 'failed'; readonly error: unknown };

export interface Subscription {
  /** Undefined: it was closed. One waits at a time. */
  take(): Promise<Taken | undefined>;
  /** Goes on from there; what was fetched ahead is dropped. `id` is that of the topic it belongs to, `end` as in `subscribe`. */
  seek(offset: bigint, id: string | undefined, end?: bigint): void;
  /** How many records lie behind what was taken, as far as a broker has said. */
  readonly behind: number;
  close(): void;
}

export interface FetcherOptions {
  /** Its fetches have sockets of their own: one that waits would hold back what comes behind it. */
  readonly cluster: Pick<Cluster, 'metadata' | 'fetch'>;
  readonly uid: string;
  readonly log: Logger;
  readonly io: Io;
  /** A topic has more partitions than before. */
  readonly grown: () => void;
}

/** How long a broker may wait for records. */
const LONG_WAIT_MS = 500;
/** The same where a partition that it leads is not in the request (F2). */
const SHORT_WAIT_MS = 20;
/** What it grows to while nothing comes. */
const SHORT_WAIT_MAX_MS = 160;
/** Of one partition, in an answer. */
const PARTITION_BYTES = 1024 * 1024;
/** How often topics are looked at without a reason. */
const CHECK_EVERY_MS = 10_000;
const GONE_AFTER_MS = 10_000;
const WAITS: Waits = { initial: 50, max: 2_000, factor: 2, jitter: 0.2 };

interface Lane {
  readonly topic: string;
  readonly partition: number;
  id: string | undefined;
  offset: bigint;
  /** A broker's id; undefined: not known (F5). */
  leader: number | undefined;
  /** Changes with each seek (F3). */
  turn: number;
  inRequest: boolean;
  ahead: Taken | undefined;
  waiter: ((taken: Taken | undefined) => void) | undefined;
  /** Something other than records was given: it waits for a seek. */
  stopped: boolean;
  closed: boolean;
  /** How often in a row a leader was looked for without a fetch that succeeded. */
  tries: number;
  missingSince: number | undefined;
  /** As far as which the log is known to have gone; undefined: that does not matter. */
  end: bigint | undefined;
  shortSince: number | undefined;
  highWatermark: bigint;
  /** The next offset that the read has not been given. */
  taken: bigint;
}

export class Fetcher {
  readonly #options: FetcherOptions;
  readonly #lanes = new Set<Lane>();
  /** Brokers that a loop runs for. */
  readonly #loops = new Set<number>();
  readonly #pause: Pause;
  readonly #pauses = new Set<Pause>();
  #looking = false;
  #closed = false;
  #checkedAt: number;
  /** By topic, as the newest metadata said. */
  readonly #partitions = new Map<string, number>();
  /** What is wrong has been said. */
  #troubled = false;
  /** Requests sent, of fetches and of metadata; answers for a partition that brought it on. */
  readonly counts = { fetches: 0, looks: 0, batches: 0 };

  constructor(options: FetcherOptions) {
    this.#options = options;
    this.#pause = new Pause(options.io.clock);
    this.#checkedAt = options.io.clock.now();
  }

  /** `end`: where the log went to when that was asked, as far as which it is read. */
  subscribe(topic: string, partition: number, offset: bigint, id: string | undefined, end?: bigint): Subscription {
    const lane: Lane = {
      topic,
      partition,
      id,
      offset,
      leader: undefined,
      turn: 0,
      inRequest: false,
      ahead: undefined,
      waiter: undefined,
      stopped: false,
      closed: this.#closed,
      tries: 0,
      missingSince: undefined,
      end,
      shortSince: undefined,
      highWatermark: -1n,
      taken: offset,
    };
    if (!this.#closed) this.#lanes.add(lane);
    this.#look();
    return {
      take: () => this.#take(lane),
      seek: (to, of, until) => this.#seek(lane, to, of, until),
      get behind() {
        return lane.highWatermark > lane.taken ? Number(lane.highWatermark - lane.taken) : 0;
      },
      close: () => this.#leave(lane),
    };
  }

  /** Ends every subscription. Requests under way end with their cluster. */
  close(): void {
    this.#closed = true;
    for (const lane of this.#lanes) this.#leave(lane);
    this.#pause.end();
    for (const pause of this.#pauses) pause.end();
  }

  // ── of one partition ──

  #take(lane: Lane): Promise<Taken | undefined> {
    const { ahead } = lane;
    if (ahead === undefined) {
      if (lane.closed) return Promise.resolve(undefined);
      return new Promise((resolve) => {
        lane.waiter = resolve;
      });
    }
    lane.ahead = undefined;
    if (ahead.kind === 'records') {
      lane.taken = ahead.next;
      this.#fetch(lane);
    }
    return Promise.resolve(ahead);
  }

  #give(lane: Lane, taken: Taken): void {
    if (taken.kind === 'records') lane.offset = taken.next;
    else lane.stopped = true;
    const { waiter } = lane;
    lane.waiter = undefined;
    if (waiter === undefined) {
      lane.ahead = taken;
      return;
    }
    if (taken.kind === 'records') lane.taken = taken.next;
    waiter(taken);
  }

  #seek(lane: Lane, offset: bigint, id: string | undefined, end: bigint | undefined): void {
    lane.turn += 1;
    lane.end = end;
    lane.shortSince = undefined;
    lane.offset = offset;
    lane.taken = offset;
    if (lane.id !== id) lane.leader = undefined;
    lane.id = id;
    lane.ahead = undefined;
    lane.stopped = false;
    lane.missingSince = undefined;
    if (lane.leader === undefined) this.#look();
    else this.#fetch(lane);
  }

  #leave(lane: Lane): void {
    lane.closed = true;
    lane.turn += 1;
    this.#lanes.delete(lane);
    const { waiter } = lane;
    lane.waiter = undefined;
    waiter?.(undefined);
  }

  // ── fetching ──

  #fetch(lane: Lane): void {
    if (lane.leader === undefined || lane.closed || this.#loops.has(lane.leader)) return;
    this.#loops.add(lane.leader);
    void this.#loop(lane.leader);
  }

  /** Runs while a partition of this broker wants records (F1). */
  async #loop(leader: number): Promise<void> {
    const { io } = this.#options;
    const pause = new Pause(io.clock);
    this.#pauses.add(pause);
    let failures = 0;
    /** Requests in a row that brought nothing while a partition was left out. */
    let quiet = 0;
    // Other reads that start may be on their way.
    let begun = false;
    // Reads that ask in this turn of the event loop go along.
    await undefined;
    while (!this.#closed) {
      const lanes: Lane[] = [];
      let whole = true;
      for (const lane of this.#lanes) {
        if (lane.leader !== leader) continue;
        if (lane.ahead === undefined && !lane.inRequest && !lane.stopped) lanes.push(lane);
        else whole = false;
      }
      if (lanes.length === 0) break;
      if (io.clock.now() - this.#checkedAt > CHECK_EVERY_MS) this.#check();
      const gave = this.counts.batches;
      const answered = await this.#request(leader, lanes, whole && begun ? LONG_WAIT_MS : Math.min(SHORT_WAIT_MS * 2 ** quiet, SHORT_WAIT_MAX_MS));
      quiet = whole || this.counts.batches > gave ? 0 : quiet + 1;
      failures = answered ? 0 : failures + 1;
      begun = true;
      // Metadata that is not of today may send its partitions back to it.
      if (failures > 0) await pause.wait(waitBefore(failures, WAITS, io.random()));
    }
    this.#pauses.delete(pause);
    this.#loops.delete(leader);
  }

  /** False where the broker did not answer. */
  async #request(leader: number, lanes: readonly Lane[], maxWaitMs: number): Promise<boolean> {
    const turns = lanes.map(({ turn }) => turn);
    for (const lane of lanes) lane.inRequest = true;
    this.counts.fetches += 1;
    let answers: readonly FetchedPartition[];
    try {
      answers = await this.#options.cluster.fetch(
        leader,
        lanes.map(({ topic, partition, offset, id }) => ({ topic, partition, offset, id })),
        { maxWaitMs, minBytes: 1, maxBytes: PARTITION_BYTES, committed: true },
      );
    } catch (error) {
      for (const lane of lanes) lane.inRequest = false;
      if (this.#closed) return true;
      for (const [at, lane] of lanes.entries()) {
        if (lane.turn === turns[at] && lane.leader === leader) this.#trouble(lane, error);
        else this.#fetch(lane);
      }
      this.#look();
      return false;
    }
    for (const lane of lanes) lane.inRequest = false;
    const byTopic = new Map<string, Map<number, FetchedPartition>>();
    for (const answer of answers) {
      const of = byTopic.get(answer.topic);
      if (of === undefined) byTopic.set(answer.topic, new Map([[answer.partition, answer]]));
      else of.set(answer.partition, answer);
    }
    let lost = false;
    for (const [at, lane] of lanes.entries()) {
      // F3
      if (lane.turn !== turns[at]) continue;
      const answer = byTopic.get(lane.topic)?.get(lane.partition);
      // A broker leaves out what did not fit.
      if (answer === undefined) continue;
      const { problem } = answer;
      if (problem === undefined) this.#arrived(lane, answer);
      else if (problem.kind === 'out of range') this.#give(lane, { kind: 'out of range', error: problem.error });
      else {
        if (problem.kind === 'failed') this.#trouble(lane, problem.error);
        // What the broker does not lead, or does not know, another may.
        else lane.leader = undefined;
        if (codeOf(problem.error) === 'KAFKA_UNREACHABLE') this.#say(messageOf(problem.error));
        lost = true;
      }
    }
    if (lost) this.#look();
    // Metadata that came meanwhile may have given them to another broker, whose loop did not take them while they were in this request.
    for (const lane of lanes) if (lane.leader !== leader) this.#fetch(lane);
    return true;
  }

  #arrived(lane: Lane, { records, next, highWatermark }: FetchedPartition): void {
    lane.tries = 0;
    lane.missingSince = undefined;
    lane.highWatermark = highWatermark;
    this.#settled();
    if (records.length === 0 && next <= lane.offset) {
      this.#shortened(lane);
      return;
    }
    lane.shortSince = undefined;
    this.counts.batches += 1;
    this.#give(lane, { kind: 'records', records, next });
  }

  /** The log ends in front of what was there before: a new leader that has not heard of the newest, which passes, or records that are lost. */
  #shortened(lane: Lane): void {
    if (lane.end === undefined || lane.highWatermark < 0n || lane.highWatermark >= lane.end) {
      lane.shortSince = undefined;
      return;
    }
    const now = this.#options.io.clock.now();
    lane.shortSince ??= now;
    if (now - lane.shortSince >= GONE_AFTER_MS) this.#give(lane, { kind: 'shortened', end: lane.highWatermark });
  }

  /** The partition has lost its leader, or nothing can be had at all. */
  #trouble(lane: Lane, error: unknown): void {
    if (isHopeless(error)) {
      this.#give(lane, { kind: 'failed', error });
      return;
    }
    lane.leader = undefined;
    // A leader that has moved is the course of things; what lasts is said.
    if (lane.tries > 1) this.#say(messageOf(error));
  }

  #say(error: string): void {
    if (this.#troubled || this.#closed) return;
    this.#troubled = true;
    const { log, uid } = this.#options;
    log.warn({ uid, error }, 'Records cannot be fetched at present; it is tried again until they can.');
  }

  #settled(): void {
    if (!this.#troubled) return;
    for (const { tries } of this.#lanes) if (tries > 1) return;
    this.#troubled = false;
    this.#options.log.info({ uid: this.#options.uid }, 'Records are fetched again.');
  }

  // ── leaders ──

  /** F5 */
  #look(): void {
    if (this.#looking) {
      this.#pause.wake();
      return;
    }
    this.#looking = true;
    void this.#findLeaders();
  }

  async #findLeaders(): Promise<void> {
    const { io } = this.#options;
    // All reads of a job that starts go along.
    await new Promise((resolve) => setImmediate(resolve));
    while (!this.#closed) {
      const lost = [...this.#lanes].filter((lane) => lane.leader === undefined && !lane.stopped);
      if (lost.length === 0) break;
      const tries = Math.min(...lost.map((lane) => lane.tries));
      if (tries > 0) {
        await this.#pause.wait(waitBefore(tries, WAITS, io.random()));
        if (this.#closed) break;
      }
      for (const lane of lost) lane.tries += 1;
      await this.#ask();
    }
    this.#looking = false;
  }

  /** Without a reason: topics may have been created anew or have grown, leaders may have moved back. */
  #check(): void {
    this.#checkedAt = this.#options.io.clock.now();
    if (!this.#looking) void this.#ask();
  }

  async #ask(): Promise<void> {
    const lanes = [...this.#lanes];
    const turns = lanes.map(({ turn }) => turn);
    const topics = [...new Set(lanes.map(({ topic }) => topic))];
    if (topics.length === 0) return;
    this.counts.looks += 1;
    let found: Map<string, TopicMetadata>;
    try {
      found = await this.#options.cluster.metadata(topics);
    } catch (error) {
      if (this.#closed) return;
      for (const lane of lanes) {
        if (isHopeless(error) && !lane.closed) this.#give(lane, { kind: 'failed', error });
        else if (lane.leader === undefined) this.#say(messageOf(error));
      }
      return;
    }
    this.#checkedAt = this.#options.io.clock.now();
    for (const [at, lane] of lanes.entries()) if (lane.turn === turns[at] && !lane.stopped) this.#apply(lane, found.get(lane.topic));
    // Behind all of them: partitions of one broker go into one request.
    for (const lane of lanes) this.#fetch(lane);
    let grown = false;
    for (const { topic, partitions } of found.values()) {
      grown ||= partitions.length > (this.#partitions.get(topic) ?? partitions.length);
      this.#partitions.set(topic, partitions.length);
    }
    if (grown) this.#options.grown();
  }

  #apply(lane: Lane, meta: TopicMetadata | undefined): void {
    const now = this.#options.io.clock.now();
    if (meta !== undefined && meta.id !== undefined && lane.id !== undefined && meta.id !== lane.id) {
      this.#interrupt(lane, { kind: 'recreated', id: meta.id });
      return;
    }
    const partition = meta?.partitions.find((of) => of.partition === lane.partition);
    if (partition === undefined) {
      lane.missingSince ??= now;
      if (now - lane.missingSince >= GONE_AFTER_MS) this.#interrupt(lane, { kind: 'gone' });
      else lane.leader = undefined;
      if (lane.tries > 1) this.#say(`The brokers do not know partition ${lane.partition} of '${lane.topic}'.`);
      return;
    }
    lane.missingSince = undefined;
    lane.id ??= meta!.id;
    if (partition.leader < 0) {
      lane.leader = undefined;
      if (lane.tries > 1) this.#say(`Partition ${lane.partition} of '${lane.topic}' has no leader.`);
      return;
    }
    lane.leader = partition.leader;
  }

  /** What is fetched ahead was of the topic that the read believes in: it is dropped only where it may not be. */
  #interrupt(lane: Lane, taken: Taken): void {
    lane.turn += 1;
    lane.ahead = undefined;
    this.#give(lane, taken);
  }
}

function isHopeless(error: unknown): boolean {
  return error instanceof MillraceError && !error.retryable;
}
