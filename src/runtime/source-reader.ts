// The reading side of a source task: its splits, one pending read a split, and what of them goes into a snapshot (protocols 19).
//
// Who owns what: the reader owns iterators and positions; the task owns when records are processed. Everything asynchronous re-enters through `post`,
// which the task's mailbox drops once its attempt is over.
//
// Invariants:
//  S1  `position` is where reading resumes after all of a batch; a batch that is half emitted is stored as the rest of it.
//  S2  One `next()` a split is pending at most, and none while its batch is not consumed. A barrier never waits for it.
//  S3  Discovery runs in instance 0; a new split goes to the instance with the fewest, ties to the lowest. A finished split is remembered as such.
//      What has been dealt to another instance is in the snapshots of instance 0 too, until the other one has said which of its own is the first to have it: barriers may
//      reach that one before its share does, any number of them where checkpoints are aborted, and what the source has decided about a split (where it begins) must not be
//      decided anew after a restore. A split that stands in both counts once.
//  S4  What a read says of undecodable records counts with the batch that it gives next, since `position` stands behind both.
//  S5  An instance that has not heard of its share of the first splits holds event time back; one that has none, or none any more, is idle at once.
//  S6  The clock of idleness stands still while the task takes no records, and while alignment pauses the split (semantics 4).
//  S7  The generator of a split that ends speaks once more, however soon it ended; from then on the split is as one that is idle for ever.

import { messageOf } from '../errors.ts';
import type { WatermarkStrategy } from '../graph/node.ts';
import type { ReadContext, Source, SourceBatch, SourceContext } from '../graph/source.ts';
import type { AlignmentGroup, AlignmentMember } from '../time/alignment-group.ts';
import { mergeSplits, SplitClock } from '../time/generators.ts';
import type { SplitSnapshot } from './snapshot.ts';

export interface SplitReading {
  readonly id: string;
  readonly split: unknown;
  position: unknown;
  finished: boolean;
  /** Set while a batch waits to be processed; `at` is the next record. */
  values: readonly unknown[] | undefined;
  timestamps: readonly number[] | undefined;
  at: number;
  /** Position after the batch that waits. */
  next: unknown;
  readonly clock: SplitClock;
  /** Where its source is aligned with others. */
  readonly member: AlignmentMember | undefined;
  iterator: AsyncIterator<SourceBatch<unknown, unknown>> | undefined;
  /** Undecodable records of the batch that is being read (S4). */
  letters: { readonly record: unknown; readonly error: unknown }[];
  reading: boolean;
  /** It had records since event time was looked at last: not idle then, however long ago they came. */
  active: boolean;
}

/** What a restored snapshot knows of the splits of a source, in all its instances. */
export interface KnownSplits {
  /** Ids of all splits ever seen. */
  readonly known: ReadonlySet<string>;
  /** By id, of those that were read to their end: where that is. */
  readonly ended: ReadonlyMap<string, unknown>;
  /** How many unfinished ones each instance holds; infinitely many where it takes no more. */
  readonly counts: readonly number[];
}

export interface ReaderOptions {
  readonly source: Source<unknown>;
  readonly strategy: WatermarkStrategy<unknown> | undefined;
  readonly subtask: number;
  readonly parallelism: number;
  readonly context: Omit<SourceContext, 'known' | 'ended'>;
  /** Of the strategy's `align`. */
  readonly group: AlignmentGroup | undefined;
  /** There may be something to do again. */
  readonly wake: () => void;
  /** Called within mail. */
  readonly deadLetter: (record: unknown, error: unknown) => void;
  readonly now: () => number;
  /** Runs `fn` as mail of this attempt. */
  readonly post: (fn: () => void) => void;
  readonly failed: (error: unknown) => void;
  /** Hands splits to the instances; only instance 0 discovers. */
  readonly assign: (instance: number, splits: readonly unknown[], last: boolean) => void;
  /** Tells instance 0 that its share is here (S3). */
  readonly arrived: (arrival: Arrival) => void;
}

/** What an instance says of the share that it was given: the newest snapshot without it. */
export interface Arrival {
  /** Ids of the splits. */
  readonly splits: readonly string[];
  /** Every snapshot with a larger id has them; 0 where none was taken before. */
  readonly behind: number;
}

/** A split that instance 0 has dealt to another one. */
interface Handed {
  readonly snapshot: SplitSnapshot;
  /** As its instance has said; unknown until then. */
  behind: number | undefined;
}

export class SourceReader {
  readonly splits = new Map<string, SplitReading>();
  /** No more splits will come. */
  complete = false;
  /** Set behind a stopping barrier: nothing more is emitted. */
  stopped = false;
  readonly #options: ReaderOptions;
  readonly #strategy: WatermarkStrategy<unknown>;
  /** It has been told its share of the first splits. */
  #dealt = false;
  /** The task takes no records now. */
  #held = false;
  #turn: SplitReading[] = [];
  /** Dealt to others, and perhaps not in their snapshots yet (S3). By id. */
  readonly #handed = new Map<string, Handed>();
  /** Newest id. */
  #snapshotId = 0;

  constructor(options: ReaderOptions) {
    this.#options = options;
    this.#strategy = options.strategy ?? {};
  }

  restore(snapshots: readonly SplitSnapshot[]): void {
    for (const s of snapshots) this.#add(s.id, s.split, s);
  }

  #add(id: string, split: unknown, restored?: SplitSnapshot): void {
    if (this.splits.has(id)) return;
    const { now, group, wake } = this.#options;
    const clock = new SplitClock(this.#strategy, now(), restored?.time);
    clock.timer.hold(this.#held, now());
    const reading: SplitReading = {
      id,
      split,
      position: restored?.position,
      finished: restored?.finished ?? false,
      values: restored?.rest?.values,
      timestamps: restored?.rest?.timestamps,
      at: 0,
      next: restored?.position,
      clock,
      member: restored?.finished === true ? undefined : group?.join(this.#strategy.align!.maxDrift, wake),
      iterator: undefined,
      letters: [],
      reading: false,
      active: false,
    };
    this.splits.set(id, reading);
    this.#turn.push(reading);
  }

  /** Begins to read, and in instance 0 to discover. `known` are the ids of all splits of the restored snapshot, of every instance, with their counts an instance. */
  start({ known, ended, counts }: KnownSplits): void {
    for (const reading of this.splits.values()) this.#read(reading);
    if (this.#options.subtask === 0) this.#discover({ known, ended }, [...counts]).catch((error) => this.#options.failed(error));
  }

  async #discover({ known, ended }: Pick<KnownSplits, 'known' | 'ended'>, counts: number[]): Promise<void> {
    const { source, context, parallelism, assign, post } = this.#options;
    const seen = new Set(known);
    let first = true;
    // Ids are asked for outside of the mail, where what they throw is a failure of the source.
    const named = (splits: readonly unknown[]) => splits.map((split) => ({ split, id: source.splitId(split) }));
    const deal = (found: ReturnType<typeof named>, last: boolean): void => {
      const shares = Array.from({ length: parallelism }, () => [] as unknown[]);
      for (const { split, id } of found) {
        if (seen.has(id)) continue;
        seen.add(id);
        const least = counts.indexOf(Math.min(...counts));
        counts[least]! += 1;
        shares[least]!.push(split);
        if (least !== this.#options.subtask)
          this.#handed.set(id, {
            snapshot: { id, split, position: undefined, finished: false, rest: undefined, time: undefined, handed: true },
            behind: undefined,
          });
      }
      shares.forEach((share, instance) => {
        if (share.length > 0 || last || first) assign(instance, share, last);
      });
      first = false;
    };
    const result = source.splits({ ...context, known, ended });
    if (Symbol.asyncIterator in result) {
      for await (const found of result) {
        if (context.signal.aborted) return;
        const splits = named(found);
        post(() => deal(splits, false));
      }
      post(() => deal([], true));
      return;
    }
    const found = named(await result);
    post(() => deal(found, true));
  }

  assigned(splits: readonly unknown[], last: boolean): void {
    const { source, subtask, arrived } = this.#options;
    this.#dealt = true;
    const ids = splits.map((split) => source.splitId(split));
    for (const [i, id] of ids.entries()) {
      this.#add(id, splits[i]);
      this.#read(this.splits.get(id)!);
    }
    if (last) this.complete = true;
    if (subtask !== 0 && ids.length > 0) arrived({ splits: ids, behind: this.#snapshotId });
  }

  /** An instance has its share (S3). */
  handedOver({ splits, behind }: Arrival): void {
    for (const id of splits) {
      const handed = this.#handed.get(id);
      if (handed !== undefined) handed.behind = behind;
    }
  }

  #read(reading: SplitReading): void {
    if (reading.finished || reading.reading || reading.values !== undefined) return;
    const { source, context, subtask, deadLetter, post, failed } = this.#options;
    if (reading.iterator === undefined) {
      const readContext: ReadContext = { ...context, subtask, deadLetter: (record, error) => void reading.letters.push({ record, error }) };
      try {
        reading.iterator = source.read(reading.split, reading.position, readContext)[Symbol.asyncIterator]();
      } catch (error) {
        failed(error);
        return;
      }
    }
    reading.reading = true;
    reading.iterator.next().then(
      (result) =>
        post(() => {
          reading.reading = false;
          for (const { record, error } of reading.letters.splice(0)) deadLetter(record, error);
          if (result.done === true) {
            reading.finished = true;
            reading.member?.leave();
          } else {
            reading.values = result.value.values;
            reading.timestamps = result.value.timestamps;
            reading.at = 0;
            reading.next = result.value.position;
          }
        }),
      (error) => failed(error),
    );
  }

  /** A split with a batch, in turn; undefined where all wait. */
  ready(): SplitReading | undefined {
    if (this.stopped) return undefined;
    for (let i = 0; i < this.#turn.length; i++) {
      const reading = this.#turn.shift()!;
      this.#turn.push(reading);
      if (reading.values !== undefined && reading.member?.paused(reading.clock.watermark) !== true) return reading;
    }
    return undefined;
  }

  /** The whole batch has been processed. */
  consumed(reading: SplitReading): void {
    if (reading.values!.length > 0) {
      reading.active = true;
      reading.clock.timer.record(this.#options.now());
    }
    if (reading.member !== undefined) reading.member.released = false;
    reading.position = reading.next;
    reading.values = undefined;
    reading.timestamps = undefined;
    this.#read(reading);
  }

  /** It knows its share, and has nothing to read of it (S5). */
  get empty(): boolean {
    if (!this.#dealt && !this.complete) return false;
    for (const reading of this.splits.values()) if (!reading.finished || reading.values !== undefined) return false;
    return true;
  }

  /** Every split is finished and no more will come. */
  get finished(): boolean {
    return this.complete && this.empty;
  }

  /** The task takes no records, or takes them again (S6). */
  hold(held: boolean): void {
    this.#held = held;
    const now = this.#options.now();
    for (const { clock, member } of this.splits.values()) clock.timer.hold(held || member?.waits === true, now);
  }

  /** Event time of this instance, after its generators have spoken. A finished split no longer holds the others back (S7). */
  time(): { watermark: number; idle: boolean } {
    const now = this.#options.now();
    const { group, context } = this.#options;
    const clocks: SplitClock[] = [];
    let open = false;
    for (const { finished, values, active, clock, member } of this.splits.values()) {
      clocks.push(clock);
      if (finished && values === undefined) {
        clock.end(now);
        continue;
      }
      open = true;
      clock.timer.hold(this.#held || member?.paused(clock.watermark) === true, now);
      clock.look(now, active || values !== undefined);
      member?.report(clock.idle ? undefined : clock.watermark);
    }
    for (const reading of this.splits.values()) reading.active = false;
    if (group?.settle(now) === true)
      context.log.warn(
        { uid: context.uid, group: this.#strategy.align!.group },
        `The alignment group '${this.#strategy.align!.group}' stood still while every split of it waited: each may go on for a batch.`,
      );
    const merged = mergeSplits(clocks);
    return open ? merged : { watermark: merged.watermark, idle: this.empty };
  }

  /** For the checkpoint of that id; ids rise. */
  snapshot(id: number): SplitSnapshot[] {
    this.#snapshotId = id;
    const own = [...this.splits.values()].map(
      (reading): SplitSnapshot => ({
        id: reading.id,
        split: reading.split,
        position: reading.values === undefined ? reading.position : reading.next,
        finished: reading.finished,
        rest: reading.values === undefined ? undefined : { values: reading.values.slice(reading.at), timestamps: reading.timestamps?.slice(reading.at) },
        time: this.#options.strategy === undefined ? undefined : reading.clock.store(),
      }),
    );
    for (const [split, { snapshot, behind }] of this.#handed) {
      if (behind !== undefined && behind < id) this.#handed.delete(split);
      else own.push(snapshot);
    }
    return own;
  }

  /** As a snapshot taken now has them: behind the batch that is half emitted, whose rest goes into it. */
  positions(): Map<string, unknown> {
    const positions = new Map<string, unknown>();
    for (const { id, values, position, next } of this.splits.values()) {
      const stored = values === undefined ? position : next;
      if (stored !== undefined) positions.set(id, stored);
    }
    return positions;
  }

  /** Ends every iterator. A read that is still pending settles when the source hears the signal; nobody waits for it. */
  close(): void {
    const { context } = this.#options;
    for (const { iterator, member } of this.splits.values()) {
      member?.leave();
      // Written by users: `return` may throw, or give no promise.
      const ended = async (): Promise<unknown> => iterator?.return?.();
      ended().catch((error) => context.log.debug({ uid: context.uid, error: messageOf(error) }, 'An iterator of the source could not be ended.'));
    }
  }
}
