// One read of one partition: takes batches of the fetcher, decodes them, says where reading resumes, and decides what is done about records that are gone.
//
// Invariants:
//  P1  A position stands behind all that was looked at, gaps of transactions included, so that retention may take them; a bounded read is over when its position has
//      reached its end, whether or not there is a record at it.
//  P2  What is read is the topic with the id in the position. Of another with the same name nothing is read, but by the user's policy.
//  P3  Dead letters of a piece are told in the same synchronous step that hands it over: no barrier comes between the two.

import { messageOf } from '../../errors.ts';
import type { ReadContext, SourceBatch } from '../../graph/source.ts';
import type { Cluster, OffsetAt } from './client.ts';
import { endsOf, type KafkaSplit, mayPass, type Until } from './discovery.ts';
import type { Fetcher, Taken } from './fetcher.ts';
import { gone, type LossPolicy, outOfRange, recreated, shortened } from './offset-loss.ts';
import type { Pause } from './pause.ts';
import type { Decoder } from './records.ts';

/** Plain data: where a split goes on. */
export interface KafkaPosition {
  /** Of the next record; a decimal number. */
  readonly offset: string;
  /** Of the topic that it belongs to (P2). */
  readonly id?: string;
  /** Of a bounded read: what `until` was resolved to. */
  readonly end?: string;
}

export interface ReadSettings<T> {
  readonly until: Until | undefined;
  readonly policy: LossPolicy;
  readonly decoder: Decoder<T>;
}

/** Pure: where a read begins. `offset` undefined: at the earliest record. A stored end holds only for a read that is bounded still. */
export function beginning(
  split: KafkaSplit,
  from: KafkaPosition | undefined,
  bounded: boolean,
): { readonly offset: bigint | undefined; readonly id: string | undefined; readonly end: bigint | undefined } {
  const offset = from === undefined ? split.start : from.offset;
  const end = bounded ? (from?.end ?? split.end) : undefined;
  return {
    offset: offset === undefined ? undefined : BigInt(offset),
    id: from === undefined ? split.id : from.id,
    end: end === undefined ? undefined : BigInt(end),
  };
}

const UNREACHABLE_WAIT_MS = 1_000;
const GONE_WAIT_MS = 5_000;

export class PartitionRead<T> {
  readonly #split: KafkaSplit;
  readonly #settings: ReadSettings<T>;
  readonly #context: ReadContext;
  readonly #cluster: Cluster;
  readonly #fetcher: Fetcher;
  readonly #pause: Pause;
  /** Of the next record; of `#fromEarliest` a first guess, since what was deleted is out of range. */
  #offset: bigint;
  #id: string | undefined;
  #end: bigint | undefined;
  #fromEarliest: boolean;
  #outOfRange = 0;

  constructor(
    split: KafkaSplit,
    from: KafkaPosition | undefined,
    settings: ReadSettings<T>,
    context: ReadContext,
    outside: { readonly cluster: Cluster; readonly fetcher: Fetcher; readonly pause: Pause },
  ) {
    const { offset, id, end } = beginning(split, from, settings.until !== undefined);
    this.#split = split;
    this.#settings = settings;
    this.#context = context;
    this.#cluster = outside.cluster;
    this.#fetcher = outside.fetcher;
    this.#pause = outside.pause;
    this.#offset = offset ?? 0n;
    this.#fromEarliest = offset === undefined;
    this.#id = id;
    this.#end = end;
  }

  async *batches(lag: (behind: () => number) => void): AsyncGenerator<SourceBatch<T, KafkaPosition>> {
    const { topic, partition } = this.#split;
    const { until, decoder } = this.#settings;
    const { signal, deadLetter } = this.#context;
    if (until !== undefined && this.#end === undefined) await this.#resolveEnd(until);
    const subscription = this.#fetcher.subscribe(topic, partition, this.#offset, this.#id, this.#seenEnd);
    lag(() => subscription.behind);
    const onBad = (bytes: Uint8Array, error: Error): void => deadLetter(bytes, error);
    const leave = (): void => subscription.close();
    signal.addEventListener('abort', leave);
    try {
      while (!signal.aborted && !this.#over) {
        const taken = await subscription.take();
        if (taken === undefined || signal.aborted) return;
        if (taken.kind !== 'records') {
          await this.#decide(taken);
          subscription.seek(this.#offset, this.#id, this.#seenEnd);
          continue;
        }
        this.#fromEarliest = false;
        this.#outOfRange = 0;
        const { records, next } = taken;
        await decoder.prepare(records);
        if (signal.aborted) return;
        let at = 0;
        do {
          const piece = decoder.decode(this.#split, records, at, this.#end, onBad);
          const ended = piece.at >= records.length;
          at = piece.at;
          // Records from the end on were not looked at, whatever the rest of the batch is.
          const beyond = !ended && this.#end !== undefined && records[at]!.offset >= this.#end;
          this.#offset = ended ? next : beyond ? this.#end! : records[at]!.offset;
          yield { values: piece.values, timestamps: piece.timestamps, position: this.#position };
          if (beyond) return;
        } while (at < records.length && !signal.aborted);
      }
    } finally {
      signal.removeEventListener('abort', leave);
      lag(() => 0);
      leave();
    }
  }

  /** P1 */
  get #over(): boolean {
    return this.#end !== undefined && this.#offset >= this.#end;
  }

  /** Offsets that the user has given may not be there yet. */
  get #seenEnd(): bigint | undefined {
    const { until } = this.#settings;
    return typeof until === 'object' && 'offsets' in until ? undefined : this.#end;
  }

  get #position(): KafkaPosition {
    return {
      offset: String(this.#offset),
      ...(this.#id === undefined ? {} : { id: this.#id }),
      ...(this.#end === undefined ? {} : { end: String(this.#end) }),
    };
  }

  /** Of a snapshot that was made by a read without an end. */
  async #resolveEnd(until: Until): Promise<void> {
    const { topic, partition } = this.#split;
    this.#end = (await endsOf(this.#cluster, until, topic, [partition])).get(partition) ?? this.#offset;
  }

  /** Sets offset and id, or throws. */
  async #decide(taken: Exclude<Taken, { kind: 'records' }>): Promise<void> {
    switch (taken.kind) {
      case 'failed':
        throw taken.error;
      case 'recreated':
        return this.#recreated(taken.id);
      case 'gone': {
        const { topic, partition } = this.#split;
        const error = gone(topic, partition, this.#offset);
        if (this.#settings.policy === 'fail') throw error;
        this.#context.log.warn({ uid: this.#context.uid }, `${error.sentence} It is waited for.`);
        await this.#pause.wait(GONE_WAIT_MS);
        return;
      }
      case 'shortened': {
        const decision = shortened({ ...this.#split, wanted: this.#end!, end: taken.end, policy: this.#settings.policy });
        if (decision.kind === 'fail') throw decision.error;
        this.#context.log.warn({ uid: this.#context.uid }, `${decision.lost} Reading ends there, as onOffsetLost says.`);
        this.#end = taken.end;
        return;
      }
      case 'out of range':
        return this.#lost(taken.error);
    }
  }

  async #lost(error: unknown): Promise<void> {
    const { topic, partition } = this.#split;
    this.#outOfRange += 1;
    const facts = await this.#asked(async () => {
      const id = (await this.#cluster.metadata([topic])).get(topic)?.id;
      return { id, earliest: await this.#offsetAt('earliest'), latest: await this.#offsetAt('latest') };
    });
    if (facts === undefined) return;
    const { id, earliest, latest } = facts;
    if (id !== undefined && this.#id !== undefined && id !== this.#id) return this.#recreated(id);
    const decision = outOfRange({
      topic,
      partition,
      wanted: this.#offset,
      earliest,
      latest,
      fromEarliest: this.#fromEarliest,
      times: this.#outOfRange,
      policy: this.#settings.policy,
    });
    if (decision.kind === 'fail') throw decision.error;
    if (decision.kind === 'again') {
      this.#context.log.debug({ uid: this.#context.uid, error: messageOf(error) }, `Offset ${this.#offset} of '${topic}/${partition}' is asked for again.`);
      await this.#pause.wait(UNREACHABLE_WAIT_MS / 5);
      return;
    }
    if (decision.lost !== undefined)
      this.#context.log.warn({ uid: this.#context.uid }, `${decision.lost} Reading goes on at ${decision.offset}, as onOffsetLost says.`);
    this.#offset = decision.offset;
  }

  async #recreated(id: string | undefined): Promise<void> {
    const { topic, partition } = this.#split;
    const { policy, until } = this.#settings;
    const decision = recreated({ topic, partition, offset: this.#offset, was: this.#id, is: id, policy });
    if (decision.kind === 'fail') throw decision.error;
    const found = await this.#asked(async () => ({ offset: await this.#offsetAt(decision.at), end: await endsOf(this.#cluster, until, topic, [partition]) }));
    if (found === undefined) return;
    this.#context.log.warn({ uid: this.#context.uid }, `${decision.lost} Reading goes on at ${found.offset}, as onOffsetLost says.`);
    this.#offset = found.offset;
    this.#id = id;
    if (until !== undefined) this.#end = found.end.get(partition) ?? found.offset;
  }

  async #offsetAt(at: OffsetAt): Promise<bigint> {
    const { topic, partition } = this.#split;
    return (await this.#cluster.offsets(topic, [partition], at, true)).get(partition)!;
  }

  /** Undefined: the brokers do not say at present; the fetch that led here is to be tried again. */
  async #asked<R>(ask: () => Promise<R>): Promise<R | undefined> {
    try {
      return await ask();
    } catch (error) {
      if (this.#context.signal.aborted) return undefined;
      if (!mayPass(error)) throw error;
      this.#context.log.debug({ uid: this.#context.uid, error: messageOf(error) }, 'What a partition holds cannot be asked for at present.');
      await this.#pause.wait(UNREACHABLE_WAIT_MS);
      return undefined;
    }
  }
}
