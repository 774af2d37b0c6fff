// The program whose savepoints are kept under test/data/savepoints, one of each format: state of every kind, timers, windows, state without keys, records that a
// sink has not committed, a dead letter. It is never changed: what it holds is what those savepoints were made of.

import {
  hours,
  type Job,
  job,
  list,
  map,
  process,
  reducing,
  seconds,
  splitList,
  sum,
  type TransactionalSink,
  tumbling,
  type,
  unionList,
  value,
} from 'millrace';

export interface Entry {
  readonly key: string;
  readonly at: number;
  readonly n: number;
}

/** What the savepoint was taken behind. */
export const FIRST: readonly Entry[] = [
  { key: 'ada', at: 1000, n: 1 },
  { key: 'bob', at: 2000, n: 2 },
  { key: 'ada', at: 3000, n: 3 },
  { key: 'é\u{1f600}', at: 4000, n: 4 },
  { key: 'ada', at: 12_000, n: -1 },
];
/** What comes after it. */
export const SECOND: readonly Entry[] = [
  { key: 'ada', at: 13_000, n: 5 },
  { key: 'bob', at: 14_000, n: 6 },
  { key: 'é\u{1f600}', at: 40_000, n: 7 },
];

const holding = process<string, Entry, unknown>()({
  state: {
    last: value<number>(),
    since: value<Date>({ ttl: hours(1_000_000) }),
    all: list<number>({ version: 3 }),
    by: map<string, bigint>(),
    total: reducing<number>((left, right) => left + right),
  },
  onRecord({ n, at }, ctx) {
    if (n < 0) throw new RangeError(`${n} is less than nothing`);
    ctx.state.last.set(n);
    if (ctx.state.since.get() === undefined) ctx.state.since.set(new Date(at));
    ctx.state.all.add(n);
    ctx.state.by.set(`n${n}`, BigInt(n) ** 70n);
    ctx.state.total.add(n);
    ctx.timers.event.set(at + 20_000);
  },
  onTimer({ at }, ctx) {
    const { key, state } = ctx;
    const by = [...state.by.entries()].sort().map(([name, big]) => `${name}=${big}`);
    ctx.emit({ key, at, last: state.last.get(), since: state.since.get()?.getTime(), all: [...state.all], by, total: state.total.get() });
  },
});

/** Commits into `into`, under the lineage's own markers. */
export function storing(into: unknown[]): TransactionalSink<unknown, unknown> {
  const markers = new Map<string, number>();
  return {
    transactional: true,
    async open({ lineage, writer }) {
      const name = `${lineage}/${writer}`;
      return {
        async commit(checkpoint, records) {
          into.push(...records);
          markers.set(name, checkpoint);
        },
        lastCommitted: async () => markers.get(name) ?? 0,
        close: async () => {},
      };
    },
  };
}

export function storedProgram(records: () => AsyncIterable<Entry>, into: { told: unknown[]; sums: unknown[]; raw: unknown[]; lists: unknown[] }): Job {
  return job('stored', (env) => {
    const entries = env.fromAsync('in', records, { timestamp: ({ at }) => at });
    const byKey = entries.keyBy(({ key }) => key);
    byKey.process('holding', holding).onError('skip').sink('told', storing(into.told));
    byKey
      .window(tumbling(seconds(10)))
      .aggregate(
        'sums',
        sum(({ n }: Entry) => n),
      )
      .sink('summed', storing(into.sums));
    entries.sink('raw', storing(into.raw));
    entries
      .process('lists', {
        emits: type<{ mine: number[]; all: string[] }>(),
        state: { mine: splitList<number>(), all: unionList<string>() },
        onRecord({ key, n }: Entry, ctx) {
          ctx.state.mine.add(n);
          ctx.state.all.add(key);
        },
        onEnd(ctx) {
          ctx.emit({ mine: ctx.state.mine.all(), all: ctx.state.all.all() });
        },
      })
      .sink('listed', storing(into.lists));
  });
}
