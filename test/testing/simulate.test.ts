import { job, seconds, sum, tumbling, type, value, type Windowed } from 'millrace';
import { collect } from 'millrace/connectors';
import { runJob, type SourceScript, simulate } from 'millrace/testing';
import { describe, expect, it } from 'vitest';

interface Sale {
  shop: string;
  amount: number;
  at: number;
}

/** Windows and running state over two sources, three vertices, two sinks. */
const shops = job('shops', (env) => {
  const strategy = { timestamp: (s: Sale) => s.at, outOfOrderness: seconds(60) };
  const here = env.fromArray<Sale>('here', [], strategy);
  const there = env.fromArray<Sale>('there', [], strategy);
  const byShop = here.union(there).keyBy((s) => s.shop);
  byShop
    .window(tumbling(seconds(10)))
    .aggregate(
      'sums',
      sum((s) => s.amount),
    )
    .sink('windows', collect([]));
  byShop
    .process('totals', {
      emits: type<string>(),
      state: { seen: value({ default: { n: 0 } }) },
      onRecord(sale, ctx) {
        const seen = ctx.state.seen.get();
        seen.n += 1;
        ctx.state.seen.set(seen);
        ctx.timers.event.set(Number.MAX_SAFE_INTEGER);
        ctx.emit(`${sale.shop} ${sale.amount}`);
      },
      onTimer(_, ctx) {
        ctx.emit(`${ctx.key} total ${ctx.state.seen.get().n}`);
      },
    })
    .sink('passed', collect([]));
});

const sales = (from: number) =>
  Array.from({ length: 40 }, (_, i) => ({ value: { shop: `s${i % 3}`, amount: from + i, at: ((i * 7919) % 50) * 1000 } satisfies Sale }));
const sources: SourceScript = { here: sales(0), there: sales(1000) };

type Sinks = { windows: Windowed<string, number>; passed: string };
const sorted = (sinks: { windows: Windowed<string, number>[]; passed: string[] }) => ({
  windows: sinks.windows.map((w) => JSON.stringify(w)).sort(),
  passed: [...sinks.passed].sort(),
});

describe('simulate', () => {
  it('without faults is runJob', async () => {
    const plain = await runJob<Sinks>(shops, { sources });
    const simulated = await simulate<Sinks>(shops, { seed: 1, sources });
    expect(sorted(simulated.sinks)).toEqual(sorted(plain.sinks));
    expect(simulated.restarts).toBe(0);
  });

  it('leaves every value once in the sinks, whatever crashes, stalls and gets lost', async () => {
    const plain = sorted((await runJob<Sinks>(shops, { sources })).sinks);
    let restarts = 0;
    for (let seed = 1; seed <= 12; seed++) {
      const run = await simulate<Sinks>(shops, { seed, sources, faults: { crash: 3, slow: 0.05, drop: 0.3 } });
      expect({ seed, ...sorted(run.sinks) }).toEqual({ seed, ...plain });
      restarts += run.restarts;
    }
    expect(restarts).toBeGreaterThan(12);
  });

  it('repeats a run with its seed', async () => {
    const faults = { crash: 0.01, slow: 0.05, drop: 0.2 };
    const one = await simulate<Sinks>(shops, { seed: 7, sources, faults });
    const two = await simulate<Sinks>(shops, { seed: 7, sources, faults });
    expect(two).toEqual(one);
    expect(one.restarts).toBeGreaterThan(0);
  });

  it('makes as many crashes as it was asked for, at most', async () => {
    for (const crash of [1, 2]) {
      const { restarts } = await simulate<Sinks>(shops, { seed: 3, sources, faults: { crash } });
      expect(restarts).toBeLessThanOrEqual(crash);
      expect(restarts).toBeGreaterThan(0);
    }
  });

  it('refuses faults that are neither a probability nor a count', async () => {
    for (const faults of [{ crash: -1 }, { slow: 1.5 }, { drop: Number.NaN }])
      await expect(simulate(shops, { seed: 1, sources, faults })).rejects.toMatchObject({ code: 'OPTION_INVALID' });
  });
});
