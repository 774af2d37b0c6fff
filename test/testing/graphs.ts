// Random graphs and a model of multisets: steps on any stream so far, which gives splits, unions, diamonds and loops of exchanges, at random parallelisms and with
// chains cut anywhere; what the model says is what comes out, each value once.
//
// The order of records is open wherever instances or inputs meet, so no step looks at it; what the steps keep in state does not depend on it either. No step
// fails: an error that is skipped undoes what its record did in the whole chain, and where chains end is not of the model.

import {
  broadcastMap,
  count,
  type OperatorSettings,
  type ProcessedStream,
  type Sink,
  type Stream,
  type StreamEnvironment,
  splitList,
  type,
  value,
} from 'millrace';
import type { Random } from '../random.ts';

export type Numbers = readonly number[];
type Streams = readonly Stream<number>[];

/** A step on one of the streams so far, or two. */
interface Step {
  readonly kind: keyof typeof KINDS;
  readonly from: number;
  readonly other: number;
  readonly uid: string;
  /** A small number, for what the kind may be told. */
  readonly n: number;
  readonly settings: { readonly parallelism: number | undefined; readonly cut: boolean };
}
export interface Plan {
  readonly parallelism: number;
  readonly sources: Readonly<Record<string, Numbers>>;
  readonly steps: readonly Step[];
  /** Which streams are looked at. */
  readonly sinks: readonly number[];
}
interface Kind {
  /** The streams that the step gives; the first one is given its settings. */
  build(from: Stream<number>, other: Stream<number>, step: Step, stall?: () => Promise<void>): Streams;
  /** What is in them. */
  values(from: Numbers, other: Numbers): readonly Numbers[];
}

const mod = (x: number, n: number): number => ((x % n) + n) % n;
const asItIs = (x: number): number => x;
const withSide = (stream: ProcessedStream<number>): Streams => [stream, stream.side<number>('fourth')];
const fourths = (values: Numbers): Numbers => values.filter((x) => x % 4 === 0).map((x) => x + 2);
const exchanged = (exchange: (from: Stream<number>) => Stream<number>): Kind => ({
  build: (from) => [exchange(from).map(asItIs)],
  values: (from) => [from],
});

const KINDS = {
  map: { build: (from) => [from.map((x) => x + 1)], values: (from) => [from.map((x) => x + 1)] },
  filter: { build: (from) => [from.filter((x) => x % 3 !== 0)], values: (from) => [from.filter((x) => x % 3 !== 0)] },
  flatMap: {
    build: (from) => [from.flatMap((x) => (x % 2 === 0 ? [] : [x, x + 7]))],
    values: (from) => [from.flatMap((x) => (x % 2 === 0 ? [] : [x, x + 7]))],
  },
  split: {
    build(from) {
      const { even, third } = from.split({ even: (x) => x % 2 === 0, third: (x) => x % 3 === 0 });
      return [even, third];
    },
    values: (from) => [from.filter((x) => x % 2 === 0), from.filter((x) => x % 2 !== 0 && x % 3 === 0)],
  },
  union: { build: (from, other) => [from.union(other)], values: (from, other) => [[...from, ...other]] },
  rebalance: exchanged((from) => from.rebalance()),
  shuffle: exchanged((from) => from.shuffle()),
  rescale: exchanged((from) => from.rescale()),
  partition: exchanged((from) => from.partition(mod)),
  keyBy: { build: (from) => [from.keyBy((x) => mod(x, 4)).map((x) => x - 1)], values: (from) => [from.map((x) => x - 1)] },
  aggregate: {
    build: (from, _, { uid }) => [
      from
        .keyBy((x) => mod(x, 5))
        .aggregate(uid, count())
        .map(({ key, value: n }) => key * 10_000 + n),
    ],
    values: (from) => [counted(from)],
  },
  deduplicate: { build: (from, _, { uid }) => [from.keyBy(asItIs).deduplicate(uid)], values: (from) => [[...new Set(from)]] },
  keyed: {
    build: (from, _, { uid }) =>
      withSide(
        from
          .keyBy((x) => mod(x, 5))
          .process(uid, {
            emits: type<number>(),
            state: { seen: value({ default: 0 }) },
            onRecord(x, context) {
              context.emit(context.key * 10_000 + next(context.state.seen));
              if (x % 4 === 0) context.side('fourth', x + 2);
            },
          }),
      ),
    values: (from) => [counted(from), fourths(from)],
  },
  kept: {
    build: (from, _, { uid }) =>
      withSide(
        from.process(uid, {
          emits: type<number>(),
          state: { kept: splitList<number>() },
          onRecord(x, context) {
            context.state.kept.add(x);
            if (x % 4 === 0) context.side('fourth', x + 2);
          },
          onEnd(context) {
            for (const x of context.state.kept.all()) context.emit(x * 2);
          },
        }),
      ),
    values: (from) => [from.map((x) => x * 2), fourths(from)],
  },
  asyncMap: {
    build: (from, _, { uid, n }, stall) => [
      from.asyncMap(
        uid,
        async (x) => {
          await stall?.();
          return x + 3;
        },
        { ordered: n % 2 === 0, capacity: n },
      ),
    ],
    values: (from) => [from.map((x) => x + 3)],
  },
  connect: {
    build: (from, other, { uid }) => [
      from.connect(other).process(uid, {
        emits: type<number>(),
        onLeft: (x, context) => context.emit(x),
        onRight: (x, context) => context.emit(x + 5),
      }),
    ],
    values: (from, other) => [[...from, ...other.map((x) => x + 5)]],
  },
  connectKeyed: {
    build: (from, other, { uid }) => [
      from
        .keyBy((x) => mod(x, 5))
        .connect(other.keyBy((x) => mod(x, 5)))
        .process(uid, {
          emits: type<number>(),
          state: { seen: value({ default: 0 }) },
          onLeft: (_, context) => context.emit(context.key * 10_000 + next(context.state.seen)),
          onRight: (_, context) => context.emit(context.key * 10_000 + next(context.state.seen)),
        }),
    ],
    values: (from, other) => [counted([...from, ...other])],
  },
  connectBroadcast: {
    build: (from, other, { uid }) => [
      from.connect(other.broadcast()).process(uid, {
        emits: type<number>(),
        state: { seen: broadcastMap<number, true>() },
        onLeft: (x, context) => context.emit(x),
        // One of the instances stands for all.
        onRight(x, context) {
          if (context.subtask === 0 && context.state.seen.get(x) === undefined) context.emit(x + 5);
          context.state.seen.set(x, true);
        },
      }),
    ],
    values: (from, other) => [[...from, ...[...new Set(other)].map((x) => x + 5)]],
  },
} satisfies Record<string, Kind>;
/** Settings of the stream that these give are of no operator of theirs. */
const WITHOUT_SETTINGS: readonly string[] = ['union'];

function next(seen: { get(): number; set(value: number): void }): number {
  seen.set(seen.get() + 1);
  return seen.get();
}

/** Of each key the running counts. */
function counted(values: Numbers): Numbers {
  const counts = new Map<number, number>();
  return values.map((x) => {
    const key = mod(x, 5);
    counts.set(key, (counts.get(key) ?? 0) + 1);
    return key * 10_000 + counts.get(key)!;
  });
}

const RECORDS_MAX = 1500;

export function planOf(random: Random): { plan: Plan; values: readonly Numbers[] } {
  const length = random.between(10, 40);
  const first = Array.from({ length }, (_, i) => i);
  const sources: Record<string, Numbers> = random.once(3) ? { in: first, beside: first.map((x) => x + 1000) } : { in: first };
  const values: Numbers[] = Object.values(sources);
  const steps: Step[] = [];
  const wanted = random.between(3, 12);
  while (steps.length < wanted && values.at(-1)!.length < RECORDS_MAX) {
    const step: Step = {
      kind: random.of(Object.keys(KINDS) as (keyof typeof KINDS)[]),
      from: random.below(values.length),
      other: random.below(values.length),
      uid: `step-${steps.length}`,
      n: random.between(1, 4),
      settings: { parallelism: random.once(5) ? random.between(1, 4) : undefined, cut: random.once(8) },
    };
    steps.push(step);
    const kind: Kind = KINDS[step.kind];
    values.push(...kind.values(values[step.from]!, values[step.other]!));
  }
  const sinks = values.map((_, i) => i).filter((i) => i === values.length - 1 || (i > 0 && !random.once(3)));
  return { plan: { parallelism: random.between(1, 3), sources, steps, sinks }, values };
}

const nowhere: Sink<number> = { open: async () => ({ write() {}, async flush() {}, async close() {} }) };

/** `stall` is awaited before each answer of an asyncMap; with it there is one more of them in front of each sink, behind an exchange. */
export function build(env: StreamEnvironment, { sources, steps, sinks }: Plan, stall?: () => Promise<void>): void {
  const streams: Stream<number>[] = Object.keys(sources).map((uid) => env.fromArray<number>(uid, []));
  for (const step of steps) {
    const kind: Kind = KINDS[step.kind];
    const made = kind.build(streams[step.from]!, streams[step.other]!, step, stall);
    if (!WITHOUT_SETTINGS.includes(step.kind)) set(made[0]!, step.settings);
    streams.push(...made);
  }
  for (const i of sinks) {
    const out = streams[i]!;
    if (stall === undefined) out.sink(`out-${i}`, nowhere);
    else
      out
        .keyBy((x) => mod(x, 7))
        .asyncMap(`stall-${i}`, async (x) => stall().then(() => x), { capacity: 1 })
        .sink(`out-${i}`, nowhere);
  }
}

function set(stream: OperatorSettings, { parallelism, cut }: Step['settings']): void {
  if (parallelism !== undefined) stream.parallelism(parallelism);
  if (cut) stream.chain('never');
}
