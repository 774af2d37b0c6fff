// Random histories of an interval join against a slow plain model: any bounds, inner and outer, functions that throw under `skip`, records that are late, watermarks
// of either side, snapshots and restores at other parallelism anywhere.
//
// The model keeps all records in two lists and looks at all of them each time.
// A failure prints the seed and the history; MILLRACE_SEED repeats it, MILLRACE_ROUNDS asks for more.

import { level, memory, type StateBackend, type Stream } from 'millrace';
import { type Harness2, harness2 } from 'millrace/testing';
import { expect, it } from 'vitest';
import { temporaryFolder } from '../protocols/lab.ts';
import { Random, rounds, SEED } from '../random.ts';

interface Item {
  readonly id: number;
  readonly key: string;
}
interface Plan {
  readonly lower: number;
  readonly upper: number;
  readonly outer: boolean;
  /** Pairs whose ids come to a multiple of 13 fail, and are skipped. */
  readonly fails: boolean;
  readonly parallelism: number;
}
type Event =
  | { readonly kind: 'record'; readonly left: boolean; readonly item: Item; readonly at: number }
  | { readonly kind: 'watermark'; readonly left: boolean; readonly time: number }
  | { readonly kind: 'restore'; readonly parallelism: number };

const pair =
  ({ fails }: Plan) =>
  (left: Item, right: Item | undefined): (number | null)[] => {
    if (fails && (left.id + (right?.id ?? 0)) % 13 === 0) throw new Error('thirteen');
    return [left.id, right?.id ?? null];
  };

const build =
  (plan: Plan) =>
  (left: Stream<Item>, right: Stream<Item>): Stream<(number | null)[]> => {
    const { lower, upper, outer, fails } = plan;
    const rights = right.keyBy((item) => item.key);
    const lefts = left.keyBy((item) => item.key);
    const joined = outer
      ? lefts.intervalJoin('join', rights, { lower, upper, outer: 'left' }, pair(plan))
      : lefts.intervalJoin('join', rights, { lower, upper }, pair(plan));
    return joined.onError(fails ? 'skip' : 'restart');
  };

interface Held {
  readonly item: Item;
  readonly at: number;
  met: boolean;
}

class Model {
  readonly #plan: Plan;
  #lefts: Held[] = [];
  readonly #rights: Held[] = [];
  readonly #watermarks = { left: Number.NEGATIVE_INFINITY, right: Number.NEGATIVE_INFINITY };
  watermark = Number.NEGATIVE_INFINITY;
  readonly results: string[] = [];
  readonly failed: number[] = [];

  constructor(plan: Plan) {
    this.#plan = plan;
  }

  record(left: boolean, item: Item, at: number): void {
    if (at < this.watermark) return;
    const { lower, upper, outer } = this.#plan;
    const mine: Held = { item, at, met: false };
    const pairs = (left ? this.#rights.map((right) => [mine, right] as const) : this.#lefts.map((other) => [other, mine] as const)).filter(
      ([l, r]) => l.item.key === r.item.key && r.at >= l.at + lower && r.at <= l.at + upper,
    );
    const over = left && at + upper < this.watermark;
    const alone = outer && over && pairs.length === 0 ? [[mine, undefined] as const] : [];
    // A record that fails with one of its pairs is as if it had not come.
    if (!this.#give(item.id, [...pairs, ...alone])) return;
    for (const [l] of pairs) l.met = true;
    if (!left) this.#rights.push(mine);
    else if (!over) this.#lefts.push(mine);
  }

  advance(left: boolean, time: number): void {
    const side = left ? 'left' : 'right';
    this.#watermarks[side] = Math.max(this.#watermarks[side], time);
    this.watermark = Math.min(this.#watermarks.left, this.#watermarks.right);
    const gone = this.#lefts.filter((l) => l.at + this.#plan.upper < this.watermark);
    this.#lefts = this.#lefts.filter((l) => !gone.includes(l));
    if (this.#plan.outer) for (const l of gone) if (!l.met) this.#give(l.item.id, [[l, undefined]]);
  }

  /** Each side as far as it has come. */
  get watermarks(): { readonly left: number; readonly right: number } {
    return this.#watermarks;
  }

  #give(id: number, pairs: readonly (readonly [Held, Held | undefined])[]): boolean {
    try {
      const given = pairs.map(([l, r]) => JSON.stringify([pair(this.#plan)(l.item, r?.item), Math.max(l.at, r?.at ?? l.at)]));
      this.results.push(...given);
      return true;
    } catch {
      this.failed.push(id);
      return false;
    }
  }
}

function historyOf(random: Random): { plan: Plan; events: Event[] } {
  const lower = random.between(-20, 10);
  const plan: Plan = {
    lower,
    upper: lower + random.of([0, 1, 5, 20]),
    outer: random.once(2),
    fails: random.once(2),
    parallelism: random.between(1, 3),
  };
  const range = random.of([1, 10, 60]);
  const length = random.of([20, 60, 60, 200]);
  const events: Event[] = [];
  const times = { left: Number.NEGATIVE_INFINITY, right: Number.NEGATIVE_INFINITY };
  for (let id = 1; id <= length; id++) {
    const watermark = Math.min(times.left, times.right);
    const from = Number.isFinite(watermark) ? watermark : 0;
    const drawn = random.below(20);
    const left = random.once(2);
    if (drawn < 15) events.push({ kind: 'record', left, item: { id, key: random.of(['a', 'a', 'b']) }, at: from + random.between(-5, range) });
    else if (drawn < 19) {
      const side = left ? 'left' : 'right';
      times[side] = Math.max(times[side], from + random.between(-10, 12));
      events.push({ kind: 'watermark', left, time: times[side] });
    } else events.push({ kind: 'restore', parallelism: random.between(1, 3) });
  }
  return { plan, events };
}

async function compare(seed: number, state: () => StateBackend): Promise<void> {
  const { plan, events } = historyOf(new Random(seed));
  const model = new Model(plan);
  const open = (options: { restore?: Uint8Array; parallelism: number }): Promise<Harness2<Item, Item, (number | null)[]>> =>
    harness2(build(plan), { ...options, state: state(), seed });
  let h = await open(plan);
  const results: string[] = [];
  const failed: number[] = [];
  const drain = (): void => {
    results.push(...h.take().map(({ value, timestamp }) => JSON.stringify([value, timestamp])));
    failed.push(...h.deadLetters().map(({ record }) => (record as Item).id));
  };
  const end: Event[] = [true, false].map((left) => ({ kind: 'watermark', left, time: Number.POSITIVE_INFINITY }));
  for (const event of [...events, ...end]) {
    switch (event.kind) {
      case 'record':
        model.record(event.left, event.item, event.at);
        await (event.left ? h.left : h.right).push(event.item, event.at);
        break;
      case 'watermark':
        model.advance(event.left, event.time);
        if (event.time === Number.POSITIVE_INFINITY) await (event.left ? h.left : h.right).end();
        else await (event.left ? h.left : h.right).watermark(event.time);
        break;
      case 'restore': {
        const restore = await h.snapshot();
        drain();
        await h.close();
        h = await open({ restore, parallelism: event.parallelism });
        const { left, right } = model.watermarks;
        if (Number.isFinite(left)) await h.left.watermark(left);
        if (Number.isFinite(right)) await h.right.watermark(right);
        break;
      }
    }
  }
  drain();
  await h.close();
  const said = `seed ${seed}: ${JSON.stringify(plan)}\n${events.map((event) => JSON.stringify(event)).join('\n')}`;
  expect(results.toSorted(), said).toEqual(model.results.toSorted());
  expect(failed.toSorted(), said).toEqual(model.failed.toSorted());
}

it(`random interval joins agree with the plain model, seeds from ${SEED}`, async () => {
  for (let round = 0; round < rounds(15); round++) await compare(SEED + round, memory);
}, 3_600_000);

it('likewise in level(), with a cache that holds next to nothing', async () => {
  const directory = await temporaryFolder();
  for (let round = 0; round < rounds(15) / 10; round++) await compare(SEED + round, () => level({ directory, cacheBytes: 1024 }));
}, 3_600_000);
