import { count, job, type Keyed, output, seconds, sum, tumbling, type, value, type Windowed } from 'millrace';
import { collect } from 'millrace/connectors';
import { crashMarker, runJob } from 'millrace/testing';
import { describe, expect, it } from 'vitest';

interface Sample {
  host: string;
  cpu: number;
  at: number;
}

const counts = job('counts', (env) => {
  env
    .fromArray<string>('words', ['not', 'these'])
    .keyBy((word) => word)
    .aggregate('count', count())
    .sink('out', collect([]));
});

const words = Array.from({ length: 60 }, (_, i) => ({ value: `w${i % 7}` }));
const expected = words.map(({ value: key }, i) => `${key} ${words.slice(0, i + 1).filter((w) => w.value === key).length}`).sort();

const shown = (out: Keyed<string, number>[]): string[] => out.map(({ key, value }) => `${key} ${value}`).sort();

describe('runJob', () => {
  it('plays scripts in the place of sources and keeps what sinks have committed', async () => {
    const { sinks, restarts, checkpoints } = await runJob<{ out: Keyed<string, number> }>(counts, { sources: { words } });
    expect(shown(sinks.out)).toEqual(expected);
    expect(restarts).toBe(0);
    expect(checkpoints).toBeGreaterThan(1);
  });

  it.each([1, 2, 3])('has every value once over crashes, at parallelism %i', async (parallelism) => {
    for (let seed = 0; seed < 3; seed++) {
      const script = [...words.slice(0, 3), crashMarker(), ...words.slice(3, 30), crashMarker(), crashMarker(), ...words.slice(30), crashMarker()];
      const { sinks, restarts } = await runJob<{ out: Keyed<string, number> }>(counts, { sources: { words: script }, parallelism, seed });
      expect(shown(sinks.out)).toEqual(expected);
      // Two instances can reach theirs at once: that is one restart.
      expect(restarts).toBeGreaterThan(0);
      expect(restarts).toBeLessThanOrEqual(4);
      if (parallelism === 1) expect(restarts).toBe(4);
    }
  });

  it('repeats a run with the same seed, and orders it otherwise with another', async () => {
    const twice = async (seed: number) => {
      const one = await runJob<{ out: Keyed<string, number> }>(counts, { sources: { words }, parallelism: 3, seed });
      const two = await runJob<{ out: Keyed<string, number> }>(counts, { sources: { words }, parallelism: 3, seed });
      expect(two).toEqual(one);
      return JSON.stringify(one.sinks.out);
    };
    const orders = new Set<string>();
    for (let seed = 0; seed < 4; seed++) orders.add(await twice(seed));
    expect(orders.size).toBeGreaterThan(1);
  });

  it('lets the job say when records happened, and windows fire at the end', async () => {
    const cpu = job('monitoring', (env) => {
      env
        .fromArray<Sample>('samples', [], { timestamp: (s) => s.at, outOfOrderness: seconds(1) })
        .keyBy((s) => s.host)
        .window(tumbling(seconds(10)))
        .aggregate(
          'cpu-10s',
          sum((s) => s.cpu),
        )
        .sink('cpu', collect([]));
    });
    const samples = [
      { value: { host: 'a', cpu: 1, at: 1000 }, timestamp: 99_000 },
      { value: { host: 'a', cpu: 2, at: 9000 } },
      { value: { host: 'a', cpu: 4, at: 12_000 } },
    ];
    const { sinks } = await runJob<{ cpu: Windowed<string, number> }>(cpu, { sources: { samples: [samples[0]!, crashMarker(), ...samples.slice(1)] } });
    expect(sinks.cpu).toEqual([
      { key: 'a', start: 0, end: 10_000, value: 3 },
      { key: 'a', start: 10_000, end: 20_000, value: 4 },
    ]);
  });

  it('uses the timestamps of the script where the job has none of its own', async () => {
    const stamps = job('stamps', (env) => {
      env
        .fromArray<string>('in', [])
        .process('stamp', { emits: type<number>(), onRecord: (_, ctx) => ctx.emit(ctx.timestamp) })
        .sink('out', collect([]));
    });
    const { sinks } = await runJob<{ out: number }>(stamps, { sources: { in: [{ value: 'a', timestamp: 5 }, { value: 'b' }] } });
    expect(sinks.out).toEqual([5, Number.NaN]);
  });

  it('runs forEach as written, and names every sink, also one that got nothing', async () => {
    const seen: number[] = [];
    const odd = output<number>('odd');
    const both = job('both', (env) => {
      const split = env.fromArray('in', [2, 4]).process('parity', {
        emits: type<number>(),
        onRecord(n, ctx) {
          if (n % 2 === 1) ctx.side(odd, n);
          else ctx.emit(n);
        },
      });
      split.forEach('seen', (n) => void seen.push(n));
      split.sink('even', collect([]));
      split.side(odd).sink('odd', collect([]));
    });
    const { sinks } = await runJob<{ even: number; odd: number }>(both, {});
    expect(sinks).toEqual({ even: [2, 4], odd: [] });
    expect(seen).toEqual([2, 4]);
  });

  it('keeps keyed state over crashes', async () => {
    const totals = job('totals', (env) => {
      env
        .fromArray<number>('in', [])
        .keyBy((n) => n % 3)
        .process('total', {
          emits: type<number>(),
          state: { row: value({ default: { total: 0 } }) },
          onRecord(n, ctx) {
            const row = ctx.state.row.get();
            row.total += n;
            ctx.state.row.set(row);
            ctx.emit(row.total);
          },
        })
        .sink('out', collect([]));
    });
    const numbers = Array.from({ length: 40 }, (_, i) => ({ value: i }));
    const straight = await runJob<{ out: number }>(totals, { sources: { in: numbers } });
    const script = [...numbers.slice(0, 20), crashMarker(), ...numbers.slice(20)];
    for (let seed = 0; seed < 3; seed++) {
      const { sinks, restarts } = await runJob<{ out: number }>(totals, { sources: { in: script }, seed });
      expect(restarts).toBe(1);
      expect(sinks.out).toEqual(straight.sinks.out);
    }
  });

  it('rejects with what the job fails with', async () => {
    const failing = job('failing', (env) => {
      env
        .fromArray('in', [1])
        .map(() => {
          throw new Error('broken');
        })
        .sink('out', collect([]));
    });
    await expect(runJob(failing, {})).rejects.toMatchObject({ code: 'USER_FUNCTION_FAILED', cause: { message: 'broken' } });
  });

  it('refuses a script for no source, and a source that never ends', async () => {
    await expect(runJob(counts, { sources: { word: [] } })).rejects.toMatchObject({ code: 'PLAN_INVALID' });
    await expect(runJob(counts, { sources: { count: [] } })).rejects.toMatchObject({ code: 'PLAN_INVALID' });
    const endless = job('endless', (env) => {
      env.source('in', { bounded: false, splits: async () => [], splitId: String, read: async function* () {} }).sink('out', collect([]));
    });
    await expect(runJob(endless, {})).rejects.toMatchObject({ code: 'PLAN_INVALID' });
  });
});
