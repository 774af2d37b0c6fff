// Random jobs of event time, each compared with itself: what sinks hold after crashes, stalls, lost notices and at other parallelisms is what they hold after a
// straight run at parallelism 1.
//
// Two kinds. «Everything» has at parallelism 1 one operator of each sort beside the others, of records that may be late: their order is given, so all results are.
// «Chains» are windows and joins behind one another, of records that are never late: results are compared whatever the order in which instances meet.
// A failure prints the seed and the settings; MILLRACE_SEED repeats it, MILLRACE_ROUNDS asks for more.

import { broadcastMap, type Job, job, level, list, map, memory, type Sink, type StateBackend, type StreamEnvironment, session, type, value } from 'millrace';
import { crashMarker, type JobOutcome, runJob, type SourceScript, simulate } from 'millrace/testing';
import { expect, it } from 'vitest';
import { temporaryFolder } from '../protocols/lab.ts';
import { checkpointsOf, Random, rounds, SEED } from '../random.ts';
import { CHAINS, type Item, itemsOf, type Measures, OUT_OF_ORDER } from './chains.ts';

type Script = SourceScript[string];
type Sinks = Record<string, unknown>;

const nowhere: Sink<unknown> = { open: async () => ({ write() {}, async flush() {}, async close() {} }) };
/** Crashes that faults bring are not what a job is to be given up for. */
const RESTARTS = { max: 1000, within: 1e9, backoff: { initial: 1, max: 1 } };

/** By sink, whatever the order. */
function held({ sinks }: JobOutcome<Sinks>): Record<string, string[]> {
  return Object.fromEntries(Object.entries(sinks).map(([uid, values]) => [uid, values.map((v) => JSON.stringify(v)).sort()]));
}

function crashed(random: Random, script: Script, crashes: number): Script {
  const items = [...script];
  for (let n = 0; n < crashes; n++) items.splice(random.below(items.length + 1), 0, crashMarker());
  return items;
}

async function same(said: string, expected: Record<string, string[]>, running: Promise<JobOutcome<Sinks>>): Promise<void> {
  const outcome = await running.catch((cause: unknown) => {
    throw new Error(said, { cause });
  });
  expect(held(outcome), `${said}, ${outcome.restarts} restarts`).toEqual(expected);
}

// ── everything ──

interface Event {
  readonly id: number;
  readonly key: number;
  readonly n: number;
  readonly at: number;
}
interface Settings {
  readonly ordered: boolean;
  readonly outOfOrderness: number;
  readonly capacity: number;
  readonly lateness: number;
  readonly gap: number;
  /** Calls about records of that number fail. */
  readonly failing: number;
}

function everything(env: StreamEnvironment, settings: Settings): void {
  const { ordered, outOfOrderness, capacity, lateness, gap, failing } = settings;
  const events = env.fromArray<Event>('in', [], { timestamp: (event) => event.at, outOfOrderness });
  const asked = events
    .asyncMap(
      'ask',
      async (event) => {
        for (let turn = 0; turn < event.n % 4; turn++) await null;
        if (event.n === failing) throw new Error('failing');
        return event;
      },
      { ordered, capacity },
    )
    .onError('skip');
  asked
    .deadLetters()
    .map((letter) => (letter.record as Event).id)
    .sink('unanswered', nowhere);

  const sessions = asked
    .keyBy((event) => event.key)
    .window(session(gap))
    .allowedLateness(lateness)
    .process('sessions', ({ key, start, end }, values) => [[key, start, end, [...values].map((event) => event.id).sort((a, b) => a - b)]]);
  sessions.sink('sessions-out', nowhere);
  sessions
    .late()
    .map((event) => event.id)
    .sink('late-out', nowhere);

  const process = asked
    .keyBy((event) => event.key)
    .process('process', {
      emits: type<unknown>(),
      state: { ids: list<number>(), byNumber: map<number, number>(), seen: value({ default: 0 }) },
      onRecord({ id, n, at }, context) {
        const { ids, byNumber, seen } = context.state;
        ids.add(id);
        seen.update((before) => before + 1);
        context.timers.event.set(at + 5);
        byNumber.set(n, id);
        if (n === 3) throw new Error('three');
        if (n === 4) {
          context.timers.event.delete(at + 5);
          ids.clear();
        }
        context.side('seen', ordered ? [id, context.watermark > at] : id);
      },
      onTimer({ at }, context) {
        if (at % 7 === 0) throw new Error('seven');
        const { ids, byNumber, seen } = context.state;
        context.emit([context.key, at, ids.all(), [...byNumber.entries()], seen.get()]);
      },
    })
    .onError('skip');
  // What it has seen when a timer fires depends on the order of the answers.
  if (ordered) process.sink('process-out', nowhere);
  else process.forEach('process-out', () => {});
  process.side('seen').sink('side-out', nowhere);
  process
    .deadLetters()
    .map(({ error, key }) => [error.message, key])
    .sink('failed-out', nowhere);

  events
    .keyBy((event) => event.key)
    .intervalJoin(
      'join',
      asked.keyBy((event) => event.key),
      { lower: -2, upper: 3, outer: 'left' },
      (left, right) => [left.id, right?.id ?? null],
    )
    .sink('join-out', nowhere);

  events
    .keyBy((event) => event.key)
    .connect(events.filter((event) => event.n === 9).broadcast())
    .process('nines', {
      emits: type<unknown>(),
      state: { nines: broadcastMap<number, number>(), total: value({ default: 0 }) },
      onLeft({ n }, context) {
        context.state.total.update((total) => total + n);
        context.timers.event.set(1000);
      },
      onRight({ id, at }, context) {
        context.state.nines.set(id, at);
      },
      onTimer(_, context) {
        const nines = [...context.state.nines.entries()].sort((a, b) => a[0] - b[0]);
        context.emit([context.key, context.state.total.get(), nines]);
      },
    })
    .sink('nines-out', nowhere);
}

async function compareEverything(seed: number, directory: string): Promise<void> {
  const random = new Random(seed);
  let time = 0;
  const script = Array.from({ length: random.between(20, 80) }, (_, id) => {
    time += random.below(6);
    const event: Event = { id, key: random.below(4), n: random.below(10), at: time - random.below(12) };
    return { value: event, timestamp: event.at };
  });
  const settings: Settings = {
    ordered: random.once(2),
    outOfOrderness: random.below(8),
    capacity: random.between(1, 5),
    lateness: random.below(6),
    gap: random.between(3, 10),
    failing: random.below(12),
  };
  const checkpoints = checkpointsOf(random);
  const tried = job('everything', (env) => everything(env, settings), { restarts: RESTARTS, checkpoints });
  const said = `seed ${seed}: ${JSON.stringify({ ...checkpoints, ...settings })}`;
  const expected = held(await runJob(tried, { sources: { in: script }, seed }));
  const state: StateBackend = random.once(3) ? level({ directory }) : memory();
  await same(`${said}, crash markers`, expected, runJob(tried, { sources: { in: crashed(random, script, 2) }, seed: seed + 1, state }));
  const faults = { crash: random.between(1, 4), slow: 0.1, drop: 0.02 };
  await same(`${said}, faults`, expected, simulate(tried, { seed, sources: { in: script }, faults }));
}

it(`random jobs of everything give after crashes what they give without, seeds from ${SEED}`, async () => {
  const directory = await temporaryFolder();
  for (let round = 0; round < rounds(3); round++) await compareEverything(SEED + round, directory);
}, 3_600_000);

// ── chains ──

async function compareChains(seed: number, directory: string): Promise<void> {
  const random = new Random(seed);
  const name = random.of(Object.keys(CHAINS));
  const { inputs, build } = CHAINS[name]!;
  const size = random.of([1, 3, 5, 10, 16]);
  const lower = random.between(-10, 5);
  const measures: Measures = { size, offset: random.between(1 - size, size - 1), lower, upper: lower + random.between(0, 15) };
  const sources = Object.fromEntries(inputs.map((uid) => [uid, itemsOf(random)]));
  const checkpoints = checkpointsOf(random);
  const made = (parallelism: number): Job =>
    job(
      'chain',
      (env) => {
        const streams = inputs.map((uid) => env.fromArray<Item>(uid, [], { timestamp: (item) => item.at, outOfOrderness: OUT_OF_ORDER }));
        const { out, failed } = build(streams, measures);
        out.sink('out', nowhere);
        failed?.sink('failed', nowhere);
      },
      { parallelism, restarts: RESTARTS, checkpoints },
    );
  const said = `seed ${seed}: ${name}, ${JSON.stringify({ ...checkpoints, ...measures })}`;
  const expected = held(await runJob(made(1), { sources }));
  for (let run = 0; run < 2; run++) {
    const parallelism = random.between(1, 3);
    const tried = made(parallelism);
    const crashes = Object.fromEntries(Object.entries(sources).map(([uid, script]) => [uid, crashed(random, script, random.below(3))]));
    const faults = { crash: random.below(3), slow: random.of([0, 2, 0.05]), drop: random.below(2) };
    const state: StateBackend = random.once(6) ? level({ directory, cacheBytes: 1024 }) : memory();
    const running = random.once(3)
      ? simulate<Sinks>(tried, { seed: seed + run, sources, faults })
      : runJob<Sinks>(tried, { sources: crashes, seed: seed + run, state });
    await same(`${said}, parallelism ${parallelism}`, expected, running);
  }
}

it(`random chains of windows and joins give at any parallelism and after crashes what they give straight, seeds from ${SEED}`, async () => {
  const directory = await temporaryFolder();
  for (let round = 0; round < rounds(10); round++) await compareChains(SEED + round, directory);
}, 3_600_000);
