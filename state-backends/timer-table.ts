// Timers: unique per (time, key, namespace). Each is a row like any other for snapshots (protocols 22); a bucket for each distinct time and a heap of
// buckets are what `next` and `pop` look at, so that a thousand windows that end together cost one place in the heap.
//
// Within one time they fire in the order in which they were set.

import type { Key, TimerRow, TimerTable } from './contract.ts';
import { HashIndex } from './hash-index.ts';
import { sameKey } from './keys.ts';
import { type FreezingTable, type Ledger, SLICE_ROWS } from './ledger.ts';
import type { TimerStore } from './residency.ts';
import { UNLISTED } from './row.ts';
import { type BlockWriter, type TableHeader, TOMBSTONE, VALUE } from './row-file.ts';

export class MemoryTimer implements TimerRow {
  time: number;
  key: Key;
  hash: number;
  ns: number;
  /** What the index knows it by. */
  id: number;
  epoch: number;
  listed: number;
  at: number;
  before: MemoryTimer | undefined;
  after: MemoryTimer | undefined;
  /** LevelDB has it, for bases. */
  stored: boolean;

  constructor(time: number, key: Key, hash: number, ns: number, id: number) {
    this.time = time;
    this.key = key;
    this.hash = hash;
    this.ns = ns;
    this.id = id;
    this.epoch = UNLISTED;
    this.listed = 0;
    this.at = -1;
    this.before = undefined;
    this.after = undefined;
    this.stored = false;
  }
}

/** The timers of one time, in a chain. An empty one stays in the heap until it comes to the top. */
class Bucket {
  readonly time: number;
  first: MemoryTimer | undefined = undefined;
  last: MemoryTimer | undefined = undefined;

  constructor(time: number) {
    this.time = time;
  }
}

const HIGH = 2 ** -32;

/** Of fractions of a millisecond nothing is seen: such timers are told apart when they are compared. */
function identity(time: number, hash: number, ns: number): number {
  let h = Math.imul(hash ^ time, 0x85ebca6b) ^ (time * HIGH);
  h = Math.imul(h ^ (h >>> 15), 0xc2b2ae35) ^ ns;
  h = Math.imul(h ^ (h >>> 13), 0x27d4eb2f) ^ (ns * HIGH);
  return Math.imul(h ^ (h >>> 16), 0x9e3779b1) | 0;
}

export class MemoryTimerTable implements TimerTable, FreezingTable {
  readonly number: number;
  readonly header: TableHeader;
  readonly timers: (MemoryTimer | undefined)[] = [];
  changed: MemoryTimer[] = [];
  size = 0;
  next = Number.POSITIVE_INFINITY;
  /** Set once, at declaration, by level(). */
  store: TimerStore | undefined = undefined;
  private readonly ledger: Ledger;
  private readonly index = new HashIndex();
  private readonly holes: number[] = [];
  private readonly buckets = new Map<number, Bucket>();
  private readonly heap: Bucket[] = [];
  /** The one that was asked for last. */
  private recent: Bucket | undefined = undefined;
  private empty = 0;
  private frozen: MemoryTimer[] = [];
  private cursor = 0;
  /** The index leaves the time out. */
  private readonly few: boolean;

  constructor(ledger: Ledger, number: number, header: TableHeader, few = false) {
    this.ledger = ledger;
    this.number = number;
    this.header = header;
    this.few = few;
  }

  private identity(time: number, hash: number, ns: number): number {
    return identity(this.few ? 0 : time, hash, ns);
  }

  private locate(time: number, key: Key, ns: number, id: number): MemoryTimer | undefined {
    const { timers, index } = this;
    for (let position = index.first(id); position !== -1; position = index.next(id)) {
      const timer = timers[position]!;
      if (timer.time === time && timer.ns === ns && (timer.key === key || sameKey(timer.key, key))) return timer;
    }
    return undefined;
  }

  set(time: number, key: Key, hash: number, ns = 0): boolean {
    // −0 and 0 are one time.
    const id = this.identity(time + 0, hash, ns + 0);
    if (this.locate(time, key, ns, id) !== undefined) return false;
    this.bring(new MemoryTimer(time + 0, key, hash, ns + 0, id));
    return true;
  }

  private bring(timer: MemoryTimer): void {
    const { ledger } = this;
    this.enter(timer);
    timer.epoch = ledger.epoch;
    if (ledger.tracked) {
      timer.listed = this.changed.length;
      this.changed.push(timer);
    }
    if (ledger.undoing) ledger.remember(() => this.remove(timer));
  }

  private enter(timer: MemoryTimer): void {
    const at = this.holes.length > 0 ? this.holes.pop()! : this.timers.length;
    timer.at = at;
    if (at === this.timers.length) this.timers.push(timer);
    else this.timers[at] = timer;
    this.index.add(timer.id, at);
    this.size++;
    this.append(timer);
  }

  /** To the end of its time's chain. */
  private append(timer: MemoryTimer): void {
    const bucket = this.bucket(timer.time);
    timer.before = bucket.last;
    timer.after = undefined;
    if (bucket.last === undefined) bucket.first = timer;
    else bucket.last.after = timer;
    bucket.last = timer;
  }

  private bucket(time: number): Bucket {
    const { recent } = this;
    if (recent !== undefined && recent.time === time && recent.first !== undefined) return recent;
    let bucket = this.buckets.get(time);
    if (bucket === undefined) {
      bucket = new Bucket(time);
      this.buckets.set(time, bucket);
      this.push(bucket);
      if (time < this.next) this.next = time;
    } else if (bucket.first === undefined) {
      this.empty--;
      if (time < this.next) this.next = time;
    }
    this.recent = bucket;
    return bucket;
  }

  delete(time: number, key: Key, hash: number, ns = 0): boolean {
    const id = this.identity(time + 0, hash, ns + 0);
    const timer = this.locate(time, key, ns, id);
    if (timer === undefined) return false;
    this.remove(timer);
    return true;
  }

  pop(until: number): TimerRow | undefined {
    if (this.next > until || this.size === 0) return undefined;
    const timer = this.heap[0]!.first!;
    this.remove(timer);
    return timer;
  }

  first(until: number): TimerRow | undefined {
    return this.next > until || this.size === 0 ? undefined : this.heap[0]!.first;
  }

  take(timer: TimerRow): void {
    this.remove(timer as MemoryTimer);
  }

  move(row: TimerRow, time: number): void {
    const timer = row as MemoryTimer;
    const { ledger } = this;
    const { key, hash, ns } = timer;
    if (!this.few || ledger.undoing) {
      this.remove(timer);
      this.set(time, key, hash, ns);
      return;
    }
    const there = this.locate(time + 0, key, ns, timer.id);
    if (there !== undefined && there !== timer) {
      this.remove(timer);
      return;
    }
    if (timer.epoch === ledger.waiting) ledger.writeWaiting((out) => this.write(out, timer));
    if (ledger.tracked) this.logRemoval(timer);
    if (timer.stored) this.unstore(timer);
    this.unchain(timer);
    timer.time = time + 0;
    this.append(timer);
    if (timer.epoch === ledger.epoch) return;
    timer.epoch = ledger.epoch;
    if (ledger.tracked) {
      timer.listed = this.changed.length;
      this.changed.push(timer);
    }
  }

  private logRemoval(timer: MemoryTimer): void {
    const { log } = this.ledger;
    log.begin(this.number, TOMBSTONE, timer.key, timer.hash);
    log.out.f64(timer.ns);
    log.out.f64(timer.time);
    log.end();
  }

  private remove(timer: MemoryTimer): void {
    const { ledger } = this;
    if (timer.epoch === ledger.waiting) {
      ledger.writeWaiting((out) => this.write(out, timer));
    } else if (timer.epoch === ledger.epoch && ledger.tracked) {
      const last = this.changed.pop()!;
      if (last !== timer) {
        this.changed[timer.listed] = last;
        last.listed = timer.listed;
      }
    }
    timer.epoch = UNLISTED;
    if (ledger.tracked) this.logRemoval(timer);
    this.leave(timer);
    if (ledger.undoing) {
      const follower = timer.after;
      ledger.remember(() => {
        this.bring(timer);
        if (follower !== undefined) this.moveBefore(timer, follower);
      });
    }
  }

  private unstore(timer: MemoryTimer): void {
    this.store!.left(timer);
    timer.stored = false;
  }

  private leave(timer: MemoryTimer): void {
    if (timer.stored) this.unstore(timer);
    this.index.remove(timer.id, timer.at);
    this.timers[timer.at] = undefined;
    this.holes.push(timer.at);
    timer.at = -1;
    this.size--;
    this.unchain(timer);
  }

  private unchain(timer: MemoryTimer): void {
    const top = this.heap[0]!;
    const bucket = top.time === timer.time ? top : this.buckets.get(timer.time)!;
    if (timer.before === undefined) bucket.first = timer.after;
    else timer.before.after = timer.after;
    if (timer.after === undefined) bucket.last = timer.before;
    else timer.after.before = timer.before;
    if (bucket.first === undefined) {
      this.empty++;
      if (timer.time === this.next) this.settle();
      else if (this.empty > 1024 && this.empty * 2 > this.heap.length) this.rebuild();
    }
  }

  /** Back to its place in the chain, from the end where it was put. */
  private moveBefore(timer: MemoryTimer, follower: MemoryTimer): void {
    const bucket = this.buckets.get(timer.time)!;
    bucket.last = timer.before;
    timer.before!.after = undefined;
    timer.after = follower;
    timer.before = follower.before;
    if (follower.before === undefined) bucket.first = timer;
    else follower.before.after = timer;
    follower.before = timer;
  }

  // ── the heap of buckets ──

  private push(bucket: Bucket): void {
    const { heap } = this;
    let i = heap.length;
    heap.push(bucket);
    while (i > 0) {
      const up = (i - 1) >> 1;
      if (heap[up]!.time <= bucket.time) break;
      heap[i] = heap[up]!;
      i = up;
    }
    heap[i] = bucket;
  }

  /** Drops empty buckets from the top; `next` is right again. */
  private settle(): void {
    const { heap } = this;
    while (heap.length > 0 && heap[0]!.first === undefined) {
      this.buckets.delete(heap[0]!.time);
      this.empty--;
      const last = heap.pop()!;
      if (heap.length > 0) this.sink(last, 0);
    }
    this.next = heap.length === 0 ? Number.POSITIVE_INFINITY : heap[0]!.time;
  }

  private sink(bucket: Bucket, from: number): void {
    const { heap } = this;
    const { length } = heap;
    let i = from;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= length) break;
      if (child + 1 < length && heap[child + 1]!.time < heap[child]!.time) child++;
      if (heap[child]!.time >= bucket.time) break;
      heap[i] = heap[child]!;
      i = child;
    }
    heap[i] = bucket;
  }

  private rebuild(): void {
    const { heap } = this;
    let kept = 0;
    for (const bucket of heap) {
      if (bucket.first === undefined) this.buckets.delete(bucket.time);
      else heap[kept++] = bucket;
    }
    heap.length = kept;
    this.empty = 0;
    for (let i = (kept >> 1) - 1; i >= 0; i--) this.sink(heap[i]!, i);
  }

  // ── all of them are in memory ──

  ready(_until: number): boolean {
    return true;
  }

  load(_until: number): Promise<void> {
    return Promise.resolve();
  }

  *all(): Iterable<TimerRow> {
    for (const timer of this.timers) if (timer !== undefined) yield timer;
  }

  // ── restoring ──

  restore(time: number, key: Key, hash: number, ns: number): void {
    const id = this.identity(time, hash, ns);
    if (this.locate(time, key, ns, id) === undefined) this.enter(new MemoryTimer(time, key, hash, ns, id));
  }

  restoreTombstone(time: number, key: Key, hash: number, ns: number): void {
    const id = this.identity(time, hash, ns);
    const timer = this.locate(time, key, ns, id);
    if (timer !== undefined) this.leave(timer);
  }

  // ── snapshots ──

  freeze(): void {
    this.frozen = this.changed;
    this.changed = [];
    this.cursor = 0;
  }

  encodeFrozen(out: BlockWriter, waiting: number, deadline: number): boolean {
    const { frozen } = this;
    for (let i = this.cursor; i < frozen.length; i++) {
      const timer = frozen[i]!;
      if (timer.epoch === waiting) {
        this.write(out, timer);
        timer.epoch = UNLISTED;
      }
      // Also where it was written when it was touched: a million such are a long look.
      if (i % SLICE_ROWS === 0 && performance.now() >= deadline) {
        this.cursor = i + 1;
        return false;
      }
    }
    this.frozen = [];
    this.cursor = 0;
    return true;
  }

  write(out: BlockWriter, timer: MemoryTimer): void {
    out.begin(this.number, VALUE, timer.key, timer.hash);
    out.out.f64(timer.ns);
    out.out.f64(timer.time);
    out.end();
  }
}
