import { type KeyedProcess, type LogFn, type Logger, list, type RunningJob, type, value, type WatermarkStrategy } from 'millrace';
import { describe, expect, it } from 'vitest';
import { DrivenClock, jobBy, rest } from '../time/driven-clock.ts';
import { checkpointsIn, ends, Feed, Seen, temporaryFolder } from './lab.ts';

/** A machine's clock that may be set, also back. */
class SetClock extends DrivenClock {
  skew = 0;
  override now(): number {
    return super.now() + this.skew;
  }
}

interface Note {
  readonly v: string;
  readonly now: number;
  readonly brief: string | undefined;
  readonly events: string;
}

const notes: KeyedProcess<string, string, Note, { brief: ReturnType<typeof value<string>>; events: ReturnType<typeof list<string>> }> = {
  emits: type<Note>(),
  state: { brief: value<string>({ ttl: 10_000 }), events: list<string>({ ttl: 10_000, ttlClock: 'event' }) },
  onRecord(v, ctx) {
    ctx.emit({ v, now: ctx.now(), brief: ctx.state.brief.get(), events: ctx.state.events.all().join('') });
    if (v === '?') return;
    ctx.state.brief.set(v);
    ctx.state.events.add(v);
    ctx.timers.processing.set(ctx.now() + 5000);
  },
  onTimer: (timer, ctx) => ctx.emit({ v: `timer ${timer.at}`, now: ctx.now(), brief: ctx.state.brief.get(), events: '' }),
};
const noting = (clock: DrivenClock, feed: Feed<string>, seen: Seen<Note>) =>
  jobBy(clock)('noting', (env) => {
    env
      .source('in', feed, { timestamp: (_, assigned) => assigned })
      .keyBy(() => 'k')
      .process('notes', notes)
      .sink('out', seen);
  });

function logger(): { readonly said: string[]; readonly log: Logger } {
  const said: string[] = [];
  const warn: LogFn = (fields: object | string, message?: string) => void said.push(typeof fields === 'string' ? fields : (message ?? ''));
  const silent: LogFn = () => {};
  return { said, log: { debug: silent, info: silent, warn, error: warn } };
}
const behind = async (running: RunningJob): Promise<number> =>
  Math.max(...(await running.metrics()).filter(({ name }) => name === 'clockBehindMs').map((sample) => sample.value));

/** A job that has written 'a' at a clock of 2,000,000, and has stopped. */
async function written() {
  const folder = await temporaryFolder();
  const feed = new Feed<string>({ bounded: false });
  const clock = new SetClock();
  await clock.advance(1_000_000);
  const seen = new Seen<Note>();
  const options = { checkpoints: checkpointsIn(folder) };
  const first = ends(await noting(clock, feed, seen).start(options));
  feed.push(['a'], [100]);
  await clock.advance(200);
  await rest();
  const stopped = first.stop();
  await clock.advance(1000);
  await stopped;
  return { folder, feed, options, at: clock.now() };
}

describe('protocols 24: clocks on restore and across machines', () => {
  it('restored on a machine whose clock is behind, processing time does not go back: it stands still, which is logged and shown; nothing expires or fires early, and nothing is lost', async () => {
    const { feed, options } = await written();
    const clock = new SetClock();
    const seen = new Seen<Note>();
    const { said, log } = logger();
    const second = ends(await noting(clock, feed, seen).start({ ...options, logger: log }));
    const late = clock.now();
    expect(said.filter((each) => each.includes('clock of this machine'))).toHaveLength(1);
    expect(await behind(second)).toBeGreaterThan(900_000);
    feed.push(['?'], [101]);
    await clock.advance(200);
    await seen.until((all) => all.length === 1);
    expect(seen.values[0]).toMatchObject({ brief: 'a', events: 'a' });
    const { now } = seen.values[0]!;
    expect(now).toBeGreaterThan(late + 900_000);
    // Five minutes by the slow clock: neither the timer nor the ttl has moved.
    await clock.advance(300_000);
    feed.push(['?'], [102]);
    await clock.advance(200);
    await seen.until((all) => all.length === 2);
    expect(seen.values[1]).toMatchObject({ now, brief: 'a' });
    // The clock has caught up: from here on everything goes by it.
    await clock.advance(now - clock.now() + 5000);
    await seen.until((all) => all.length === 3);
    expect(seen.values[2]!.v).toMatch(/^timer/);
    expect(await behind(second)).toBe(0);
    await clock.advance(6000);
    feed.push(['?'], [103]);
    await clock.advance(200);
    await seen.until((all) => all.length === 4);
    expect(seen.values[3]).toMatchObject({ brief: undefined, events: 'a' });
  });

  it('a clock that is set back while the job runs takes processing time nowhere', async () => {
    const feed = new Feed<string>({ bounded: false });
    const clock = new SetClock();
    const seen = new Seen<Note>();
    const running = ends(await noting(clock, feed, seen).start());
    feed.push(['a'], [1]);
    await clock.advance(1000);
    await seen.until((all) => all.length === 1);
    clock.skew = -600_000;
    feed.push(['b'], [2]);
    await clock.advance(200);
    await seen.until((all) => all.length === 2);
    const [first, second] = seen.values;
    expect(second!.now).toBeGreaterThanOrEqual(first!.now);
    expect(second!.brief).toBe('a');
    expect(await behind(running)).toBeGreaterThan(590_000);
  });

  it('an outage longer than the ttl: by processing time all is gone at the first read, by event time nothing is', async () => {
    const { feed, options, at } = await written();
    const clock = new SetClock();
    await clock.advance(at + 3_600_000 - clock.now());
    const seen = new Seen<Note>();
    const { said, log } = logger();
    ends(await noting(clock, feed, seen).start({ ...options, logger: log }));
    feed.push(['?'], [101]);
    await clock.advance(200);
    // The timer that came due meanwhile fires too, before or after.
    await seen.until((all) => all.some(({ v }) => v === '?'));
    expect(seen.values.find(({ v }) => v === '?')).toMatchObject({ brief: undefined, events: 'a' });
    expect(said).toEqual([]);
    // Event time goes on with the records.
    feed.push(['b'], [20_000]);
    await clock.advance(200);
    feed.push(['?'], [20_001]);
    await clock.advance(200);
    await seen.until((all) => all.filter(({ v }) => v === '?').length === 2);
    expect(seen.values.filter(({ v }) => v === '?')[1]).toMatchObject({ brief: 'b', events: 'b' });
  });
});

describe('protocols 24: alignment of sources', () => {
  const aligned = (idleness?: number): WatermarkStrategy<number> => ({
    timestamp: (v) => v,
    align: { group: 'g', maxDrift: 150 },
    ...(idleness === undefined ? {} : { idleness }),
  });
  /** Two sources into one operator, which has to align their barriers. */
  const joined = (clock: DrivenClock, slow: Feed<number>, fast: Feed<number>, out: number[], idleness?: number) =>
    jobBy(clock)('joined', (env) => {
      env
        .source('slow', slow, aligned(idleness))
        .keyBy(() => 'k')
        .connect(env.source('fast', fast, aligned(idleness)).keyBy(() => 'k'))
        .process('both', { emits: type<number>(), onLeft: (v, ctx) => ctx.emit(v), onRight: (v, ctx) => ctx.emit(v) })
        .forEach('out', (v) => void out.push(v));
    });
  async function ahead(idleness?: number) {
    const folder = await temporaryFolder();
    const clock = new DrivenClock();
    const [slow, fast] = [new Feed<number>({ bounded: false }), new Feed<number>({ bounded: false })];
    const out: number[] = [];
    const running = ends(await joined(clock, slow, fast, out, idleness).start({ checkpoints: checkpointsIn(folder) }));
    slow.push([0]);
    await clock.advance(200);
    // Event time is told every 200 ms.
    for (let t = 100; t < 1000; t += 100) {
      fast.push([t]);
      await clock.advance(200);
    }
    expect(Math.max(...out)).toBeLessThan(500);
    return { clock, slow, fast, out, running };
  }

  it('a barrier passes the one that is paused, so that the slowest is not held at its own', async () => {
    const { clock, slow, out, running } = await ahead();
    const taken = running.checkpoint();
    await clock.advance(10);
    expect((await taken).id).toBe(1);
    slow.push([2000]);
    await clock.advance(1000);
    expect(Math.max(...out.filter((v) => v < 2000))).toBe(900);
    expect(out).toContain(2000);
  });

  it('one whose input has ended holds nobody', async () => {
    const { clock, slow, out } = await ahead();
    slow.end();
    await clock.advance(1000);
    expect(Math.max(...out)).toBe(900);
  });

  it('one that is idle holds nobody, and does again when it is back', async () => {
    const { clock, slow, fast, out } = await ahead(5000);
    await clock.advance(6000);
    expect(Math.max(...out)).toBe(900);
    slow.push([1000]);
    await clock.advance(200);
    for (let t = 2000; t < 3000; t += 100) {
      fast.push([t]);
      await clock.advance(200);
    }
    expect(Math.max(...out)).toBeLessThan(2500);
  });
});
