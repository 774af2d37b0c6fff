// Random small jobs of windows against a slow plain model: any assigner, trigger, lateness, function and evictor, records out of order, the clock and
// watermarks in between, snapshots and restores at other parallelism anywhere.
//
// The model is written from the rules alone: a window is an object in a list, sessions are joined by looking at all of them, nothing is kept by slices,
// timers are found by looking at all windows each time. A failure prints the seed and the job; MILLRACE_SEED repeats it, MILLRACE_ROUNDS asks for more.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  type AggregateFunction,
  count,
  type Evictor,
  early,
  every,
  evictCount,
  evictDelta,
  evictTime,
  global,
  type KeyedStream,
  level,
  memory,
  onCount,
  onEventTime,
  onProcessingTime,
  purging,
  type Stream,
  session,
  sliding,
  type Trigger,
  tumbling,
  type WindowAssigner,
  type WindowedStream,
} from 'millrace';
import { expect, it, onTestFinished } from 'vitest';
import type { Backend } from '../../state-backends/index.ts';
import { Random, rounds, SEED } from '../random.ts';
import { Driven, type Snapshot } from './driven.ts';

interface Item {
  readonly id: number;
  readonly key: string;
  readonly gap: number;
}

// ── what a job is ──

type Windows =
  | { readonly kind: 'fixed'; readonly size: number; readonly slide: number; readonly offset: number; readonly time: 'event' | 'processing' }
  | { readonly kind: 'session'; readonly own: boolean; readonly time: 'event' | 'processing' }
  | { readonly kind: 'global' }
  | { readonly kind: 'count'; readonly n: number; readonly slide: number | undefined }
  /** Of an own assigner: two windows a record, which begin together. */
  | { readonly kind: 'own' };
type Firing =
  | { readonly kind: 'default' }
  | { readonly kind: 'count'; readonly n: number; readonly purging: boolean }
  | { readonly kind: 'every'; readonly ms: number; readonly time: 'event' | 'processing' }
  | { readonly kind: 'early'; readonly every: number; readonly count: number }
  | { readonly kind: 'clock' }
  | { readonly kind: 'purging' };
type Dropping = { readonly kind: 'count' | 'time' | 'delta'; readonly by: number } | undefined;
interface Plan {
  readonly windows: Windows;
  readonly firing: Firing;
  readonly lateness: number;
  readonly dropping: Dropping;
  readonly makes: 'sum' | 'collect' | 'no merge' | 'reduce' | 'process' | 'coGroup';
}
type Event =
  | { readonly kind: 'record'; readonly item: Item; readonly at: number; readonly right: boolean }
  | { readonly kind: 'watermark'; readonly time: number }
  | { readonly kind: 'clock'; readonly now: number }
  | { readonly kind: 'restore'; readonly parallelism: number };

function planOf(random: Random): Plan {
  const time = random.of(['event', 'event', 'processing'] as const);
  const slide = random.between(2, 20);
  const kind = random.of(['tumbling', 'sliding', 'session', 'session', 'session', 'global', 'count', 'own'] as const);
  const windows: Windows =
    kind === 'tumbling' || kind === 'sliding'
      ? { kind: 'fixed', size: kind === 'tumbling' ? slide : random.between(2, 40), slide, offset: random.between(1 - slide, slide - 1), time }
      : kind === 'session'
        ? { kind, own: random.below(4) === 0, time: random.of(['event', 'event', 'event', 'processing'] as const) }
        : kind === 'count'
          ? { kind, n: random.between(1, 5), slide: random.of([undefined, random.between(1, 4)]) }
          : { kind };
  const makes = random.of(['sum', 'sum', 'collect', 'no merge', 'reduce', 'process', 'process', 'coGroup'] as const);
  const merges = windows.kind === 'session';
  const firing: Firing =
    makes === 'coGroup' || windows.kind === 'count' || random.below(3) === 0
      ? { kind: 'default' }
      : random.of<Firing>([
          { kind: 'count', n: random.between(1, 4), purging: random.below(2) === 0 },
          { kind: 'every', ms: random.between(3, 20), time: random.of(['event', 'processing'] as const) },
          { kind: 'early', every: random.of([0, random.between(3, 20)]), count: random.between(1, 4) },
          { kind: 'clock' },
          { kind: 'purging' },
        ]);
  return {
    windows,
    firing,
    lateness: random.of([0, 0, 5, 30]),
    dropping: makes === 'coGroup' || random.below(4) > 0 ? undefined : { kind: random.of(['count', 'time', 'delta'] as const), by: random.between(1, 6) },
    // An aggregate without merge cannot be used where windows merge.
    makes: merges && makes === 'no merge' ? 'sum' : makes,
  };
}

function eventsOf(random: Random, plan: Plan): Event[] {
  const events: Event[] = [];
  let newest = random.between(-100, 50);
  let watermark = Number.NEGATIVE_INFINITY;
  let now = 0;
  const length = random.between(5, 60);
  for (let id = 1; id <= length; id++) {
    const drawn = random.below(10);
    if (drawn < 6) {
      newest += random.of([0, 0, 1, 2, 5, 12, 30]);
      const item = { id, key: random.of(['a', 'a', 'b', 'c']), gap: random.between(2, 15) };
      events.push({ kind: 'record', item, at: newest - random.of([0, 0, 0, 1, 3, 10, 25, 60]), right: plan.makes === 'coGroup' && random.below(2) === 0 });
    } else if (drawn < 8) {
      watermark = Math.max(watermark, newest - random.of([0, 1, 5, 20]) - 1);
      events.push({ kind: 'watermark', time: watermark });
    } else if (drawn === 8) {
      now += random.of([1, 3, 8, 25]);
      events.push({ kind: 'clock', now });
    } else if (random.below(2) === 0) {
      events.push({ kind: 'restore', parallelism: random.between(1, 3) });
    }
  }
  return events;
}

// ── the job ──

const plain: AggregateFunction<Item, number, number> = { create: () => 0, add: (total, item) => total + item.id, result: (total) => total };
const totals: AggregateFunction<Item, { total: number }, number> & { merge: unknown } = {
  create: () => ({ total: 0 }),
  add(held, item) {
    held.total += item.id;
    return held;
  },
  merge(left: { total: number }, right: { total: number }) {
    left.total += right.total;
    return left;
  },
  result: (held) => held.total,
};
const gathered: AggregateFunction<Item, number[], number[]> & { merge: unknown } = {
  create: () => [],
  add: (held, item) => [...held, item.id],
  merge: (left: number[], right: number[]) => [...left, ...right],
  result: (held) => held,
};

function assignerOf(windows: Windows): WindowAssigner<Item> {
  switch (windows.kind) {
    case 'fixed': {
      const { size, slide, offset, time } = windows;
      return size === slide ? tumbling(size, { offset, time }) : sliding(size, slide, { offset, time });
    }
    case 'session': {
      const { time, own } = windows;
      if (!own) return session<Item>((item) => item.gap, { time });
      return {
        merges: true,
        time,
        assign: (item, at) => [{ start: at, end: at + item.gap }],
        trigger: time === 'event' ? onEventTime : onProcessingTime,
      };
    }
    case 'global':
      return global();
    case 'count':
      return count(windows.n, windows.slide);
    case 'own':
      return { merges: false, time: 'event', assign: (item, at) => ownWindows(item, at), trigger: onEventTime };
  }
}

function ownWindows(item: Item, at: number): { start: number; end: number }[] {
  const start = Math.floor(at / 10) * 10;
  return item.gap === 2
    ? []
    : [
        { start, end: start + 10 },
        { start, end: start + 10 + item.gap },
      ];
}

function triggerOf(firing: Firing): Trigger<unknown> | undefined {
  switch (firing.kind) {
    case 'default':
      return undefined;
    case 'count':
      return firing.purging ? purging(onCount(firing.n)) : onCount(firing.n);
    case 'every':
      return every(firing.ms, firing.time);
    case 'early':
      return early({ every: firing.every, count: firing.count });
    case 'clock':
      return onProcessingTime();
    case 'purging':
      return purging(onEventTime());
  }
}

function evictorOf(dropping: NonNullable<Dropping>): Evictor<Item> {
  if (dropping.kind === 'count') return evictCount(dropping.by);
  return dropping.kind === 'time' ? evictTime(dropping.by) : evictDelta<Item>(dropping.by, (older, newest) => newest.id - older.id);
}

function build(plan: Plan, left: Stream<Item>, right: Stream<Item>): unknown {
  const keyBy = (stream: Stream<Item>): KeyedStream<string, Item> => stream.keyBy((item) => item.key);
  const assigner = assignerOf(plan.windows);
  if (plan.makes === 'coGroup')
    return keyBy(left)
      .coGroup(keyBy(right))
      .window(assigner)
      .apply('w', (key, l, r, { start, end }) => [{ key, start, end, value: [l.map((item) => item.id), r.map((item) => item.id)] }]);
  // The compiler knows of the assigner only that it may merge.
  let windowed = keyBy(left).window(assigner).allowedLateness(plan.lateness) as WindowedStream<string, Item, false>;
  const trigger = triggerOf(plan.firing);
  if (trigger !== undefined) windowed = windowed.trigger(trigger);
  if (plan.dropping !== undefined) windowed = windowed.evictor(evictorOf(plan.dropping));
  switch (plan.makes) {
    case 'sum':
      return windowed.aggregate('w', totals);
    case 'collect':
      return windowed.aggregate('w', gathered);
    case 'no merge':
      return windowed.aggregate('w', plain);
    case 'reduce':
      return windowed.reduce('w', ({ key, gap, id }, other) => ({ key, gap, id: id + other.id }));
    case 'process':
      return windowed.process('w', ({ key, start, end }, values) => [{ key, start, end, value: [...values].map((item) => item.id) }]);
  }
}

// ── the model ──

interface Held {
  readonly item: Item;
  readonly at: number;
  readonly right: boolean;
}
interface Open {
  key: string;
  start: number;
  end: number;
  held: Held[];
  /** What triggers remember. */
  counted: number;
  /** The next firing of `every`, and of `early` by the clock. */
  next: number | undefined;
  due: number | undefined;
  /** Its end is still to come, and is a firing. */
  atEnd: boolean;
}
interface Result {
  readonly key: string;
  readonly start: number;
  readonly end: number;
  readonly value: unknown;
}

class Model {
  readonly #plan: Plan;
  readonly #time: 'event' | 'processing';
  readonly #bounded: boolean;
  readonly #lateness: number;
  #open: Open[] = [];
  #watermark = Number.NEGATIVE_INFINITY;
  #now = 0;
  results: Result[] = [];
  late: number[] = [];
  lost: number[] = [];

  constructor(plan: Plan) {
    this.#plan = plan;
    const { windows } = plan;
    this.#time = windows.kind === 'fixed' || windows.kind === 'session' ? windows.time : 'event';
    this.#bounded = windows.kind !== 'global' && windows.kind !== 'count';
    this.#lateness = this.#time === 'event' ? plan.lateness * (plan.makes === 'coGroup' ? 0 : 1) : 0;
  }

  #over(end: number): number {
    return end - 1 + this.#lateness;
  }
  #clock(time: 'event' | 'processing'): number {
    return time === 'event' ? this.#watermark : this.#now;
  }

  // ── records ──

  record(item: Item, at: number, right: boolean): void {
    this.#add(item, at, right);
    this.#timers('processing');
  }
  #add(item: Item, at: number, right: boolean): void {
    const { windows } = this.#plan;
    const time = this.#time === 'event' ? at : this.#now;
    const bounds: { start: number; end: number }[] = [];
    if (windows.kind === 'fixed') {
      const { size, slide, offset } = windows;
      for (let start = offset + Math.floor((time - offset) / slide) * slide; start > time - size; start -= slide) bounds.push({ start, end: start + size });
    } else if (windows.kind === 'session') bounds.push({ start: time, end: time + item.gap });
    else if (windows.kind === 'own') bounds.push(...ownWindows(item, time));
    else bounds.push({ start: Number.NEGATIVE_INFINITY, end: Number.POSITIVE_INFINITY });
    if (bounds.length === 0) return;
    let taken = false;
    for (const { start, end } of bounds) {
      const window = windows.kind === 'session' ? this.#joined(item.key, start, end) : this.#found(item.key, start, end);
      if (window === undefined) continue;
      taken = true;
      window.held.push({ item, at, right });
      this.#asked(window, at);
    }
    if (taken) return;
    if (this.#time === 'event' && at + this.#lateness <= this.#watermark) this.late.push(item.id);
    else this.lost.push(item.id);
  }

  #found(key: string, start: number, end: number): Open | undefined {
    if (this.#time === 'event' && this.#bounded && this.#over(end) <= this.#watermark) return undefined;
    const there = this.#open.find((window) => window.key === key && window.start === start && window.end === end);
    return there ?? this.#opened(key, start, end);
  }

  #opened(key: string, start: number, end: number): Open {
    const window: Open = { key, start, end, held: [], counted: 0, next: undefined, due: undefined, atEnd: false };
    this.#open.push(window);
    return window;
  }

  #joined(key: string, start: number, end: number): Open | undefined {
    const touching = this.#open.filter((window) => window.key === key && start <= window.end && end >= window.start).sort((a, b) => a.start - b.start);
    if (touching.length === 0) return this.#time === 'event' && this.#over(end) <= this.#watermark ? undefined : this.#opened(key, start, end);
    const [only] = touching;
    if (touching.length === 1 && only!.start <= start && only!.end >= end) return only;
    const merged = only!;
    // Accumulators are merged in the order of the sessions, records stand in the order in which they came.
    const inOrder = this.#plan.makes === 'process' || this.#plan.makes === 'coGroup' || this.#plan.dropping !== undefined;
    merged.held = touching.flatMap((window) => window.held);
    if (inOrder) merged.held.sort((a, b) => a.item.id - b.item.id);
    merged.end = Math.max(end, ...touching.map((window) => window.end));
    merged.start = Math.min(start, merged.start);
    merged.counted = touching.reduce((sum, window) => sum + window.counted, 0);
    const pending = touching.map((window) => window.next).filter((next) => next !== undefined);
    merged.next = pending.length === 0 ? undefined : Math.min(...pending);
    merged.due = touching.map((window) => window.due).find((due) => due !== undefined);
    this.#open = this.#open.filter((window) => window === merged || !touching.includes(window));
    this.#setEnd(merged);
    return merged;
  }

  /** The end by the window's own time is to come: then it fires there. */
  #setEnd(window: Open): boolean {
    const toCome = this.#time === 'processing' || window.end - 1 > this.#watermark;
    if (toCome) window.atEnd = true;
    return toCome;
  }

  #asked(window: Open, at: number): void {
    const { firing, windows } = this.#plan;
    if (windows.kind === 'count') {
      this.#count(window, windows.slide ?? windows.n, windows.slide === undefined);
      return;
    }
    if (windows.kind === 'global' && firing.kind === 'default') return;
    switch (firing.kind) {
      case 'default':
        if (!this.#setEnd(window)) this.#fire(window);
        break;
      case 'purging':
        // Of event time, whatever the windows are.
        if (window.end - 1 > this.#watermark) window.atEnd = true;
        else this.#fire(window, true);
        break;
      case 'clock':
        window.atEnd = true;
        break;
      case 'count':
        this.#count(window, firing.n, firing.purging);
        break;
      case 'every': {
        if (!this.#setEnd(window)) {
          this.#fire(window);
          break;
        }
        if (window.next !== undefined) break;
        const from = firing.time === 'event' ? at : this.#now;
        window.next = Math.floor(from / firing.ms) * firing.ms + firing.ms;
        break;
      }
      case 'early': {
        if (!this.#setEnd(window)) {
          this.#fire(window);
          break;
        }
        if (firing.every > 0 && window.due === undefined) {
          const due = Math.floor(this.#now / firing.every) * firing.every + firing.every;
          if (this.#time === 'event' || due < window.end - 1) window.due = due;
        }
        if (firing.count > 0) this.#count(window, firing.count, false);
        break;
      }
    }
  }

  #count(window: Open, n: number, purges: boolean): void {
    window.counted += 1;
    if (window.counted < n) return;
    window.counted = 0;
    this.#fire(window, purges);
  }

  // ── time ──

  watermark(time: number): void {
    if (time <= this.#watermark) return;
    this.#watermark = time;
    this.#timers('event');
  }
  clock(now: number): void {
    this.#now = now;
    this.#timers('processing');
  }

  /** By which time the window's end is a firing. */
  get #endTime(): 'event' | 'processing' {
    const { kind } = this.#plan.firing;
    return kind === 'purging' ? 'event' : kind === 'clock' ? 'processing' : this.#time;
  }

  #timers(domain: 'event' | 'processing'): void {
    const { firing } = this.#plan;
    const until = this.#clock(domain);
    for (;;) {
      // The earliest of all; at one time what a trigger has set comes before the end of a window.
      let best: { at: number; rank: number; run: () => void } | undefined;
      const offer = (at: number | undefined, rank: number, run: () => void): void => {
        if (at !== undefined && at <= until && (best === undefined || at < best.at || (at === best.at && rank < best.rank))) best = { at, rank, run };
      };
      for (const window of this.#open) {
        if (window.atEnd && this.#endTime === domain && this.#ends)
          offer(window.end - 1, 0, () => {
            window.atEnd = false;
            this.#fire(window, firing.kind === 'purging');
          });
        // What is behind the end by the same time is not to come.
        const { next, due } = window;
        if (firing.kind === 'every' && firing.time === domain && next !== undefined && (domain !== this.#time || next < window.end - 1))
          offer(next, 0, () => {
            window.next = next + firing.ms;
            // A window that does not end by event time would fire for ever at its end.
            if (domain === 'event' && until === Number.POSITIVE_INFINITY && (window.end === until || this.#time === 'processing')) window.next = undefined;
            this.#fire(window);
          });
        if (domain === 'processing' && due !== undefined)
          offer(due, 0, () => {
            window.due = undefined;
            if (this.#time === 'processing' || window.end - 1 > this.#watermark) this.#fire(window);
          });
        if (this.#bounded && domain === this.#time)
          offer(this.#over(window.end), 1, () => {
            this.#open = this.#open.filter((other) => other !== window);
          });
      }
      if (best === undefined) return;
      (best as { run: () => void }).run();
    }
  }

  /** Whether the end of a window is a firing at all. */
  get #ends(): boolean {
    const { firing, windows } = this.#plan;
    return firing.kind !== 'count' && !(firing.kind === 'default' && (windows.kind === 'global' || windows.kind === 'count'));
  }

  #fire(window: Open, purges = false): void {
    const { makes, windows } = this.#plan;
    const before = window.held;
    const dropping = this.#plan.dropping ?? (windows.kind === 'count' && windows.slide !== undefined ? { kind: 'count' as const, by: windows.n } : undefined);
    if (dropping !== undefined && before.length > 0) {
      const { kind, by } = dropping;
      const newest = Math.max(...before.map(({ at }) => at));
      const last = before[before.length - 1]!.item.id;
      window.held = before.filter(({ item, at }, i) => (kind === 'count' ? i >= before.length - by : kind === 'time' ? at > newest - by : last - item.id < by));
    }
    const { key, start, end, held } = window;
    const ids = held.map(({ item }) => item.id);
    if (ids.length > 0) {
      const total = ids.reduce((sum, id) => sum + id, 0);
      const value =
        makes === 'coGroup'
          ? [held.filter(({ right }) => !right).map(({ item }) => item.id), held.filter(({ right }) => right).map(({ item }) => item.id)]
          : makes === 'process' || makes === 'collect'
            ? ids
            : total;
      this.results.push({ key, start, end, value });
    }
    if (purges) window.held = [];
  }
}

// ── the comparison ──

const ROUNDS = rounds(400);

/** By key and window, in the order in which they came; what came of others in between does not count. */
function byWindow(results: readonly Result[], sorted: boolean, own: boolean): Record<string, string[]> {
  const out: Record<string, string[]> = {};
  for (const { key, start, end, value } of results) {
    const name = own ? `${key} ${start} ${end}` : `${key} ${start}`;
    // Slices are put together in their order, and a collecting function shows it.
    const shown = sorted && Array.isArray(value) ? value.toSorted((a, b) => a - b) : value;
    out[name] = [...(out[name] ?? []), JSON.stringify(shown)];
  }
  return out;
}

async function compare(seed: number, backend: () => Backend): Promise<void> {
  const random = new Random(seed);
  const plan = planOf(random);
  const events = eventsOf(random, plan);
  const model = new Model(plan);
  const made = (options: { restore?: Snapshot; parallelism: number }): Promise<Driven<Item>> =>
    Driven.open<Item>((left, right) => build(plan, left, right), { ...options, backend, seed, skip: seed % 3 === 0 });
  let driven = await made({ parallelism: random.between(1, 3) });
  const results: Result[] = [];
  const late: number[] = [];
  const drain = (): void => {
    for (const { value, timestamp } of driven.take()) {
      const { key, start, end, value: of } = value as Result;
      expect(timestamp).toBe(end - 1);
      results.push({ key, start, end, value: plan.makes === 'reduce' ? (of as Item).id : of });
    }
    late.push(...driven.take('late').map(({ value }) => (value as Item).id));
  };
  const bounded = plan.windows.kind !== 'global' && plan.windows.kind !== 'count';
  const end: Event[] = [{ kind: 'watermark', time: Number.POSITIVE_INFINITY }, ...(bounded ? [{ kind: 'clock', now: 1e6 } as const] : [])];
  for (const event of [...events, ...end]) {
    switch (event.kind) {
      case 'record':
        driven.push(event.item, event.at, event.right);
        model.record(event.item, event.at, event.right);
        break;
      case 'watermark':
        driven.watermark(event.time);
        model.watermark(event.time);
        break;
      case 'clock':
        driven.clock(event.now);
        model.clock(event.now);
        break;
      case 'restore': {
        const restore = driven.snapshot();
        drain();
        await driven.close();
        driven = await made({ restore, parallelism: event.parallelism });
        break;
      }
    }
    drain();
    await driven.relieve();
  }
  const said = `seed ${seed}: ${JSON.stringify(plan)}\n${events.map((event) => JSON.stringify(event)).join('\n')}`;
  const own = plan.windows.kind === 'own';
  const sorted = plan.makes === 'collect' && plan.windows.kind === 'fixed';
  expect(byWindow(results, sorted, own), said).toEqual(byWindow(model.results, sorted, own));
  expect(late.toSorted(), said).toEqual(model.late.toSorted());
  if (bounded) expect(driven.rows, said).toBe(0);
  await driven.close();
}

it(`random windows agree with the plain model, seeds from ${SEED}`, async () => {
  for (let round = 0; round < ROUNDS; round++) await compare(SEED + round, memory as () => Backend);
}, 600_000);

it('likewise in level()', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'millrace-'));
  onTestFinished(() => rm(directory, { recursive: true, force: true, maxRetries: 3 }));
  for (let round = 0; round < ROUNDS / 40; round++) await compare(SEED + round, () => level({ directory }) as Backend);
}, 600_000);
