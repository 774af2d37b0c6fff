import { type AggregateFunction, job, memory, type RecordContext, sliding, tumbling, value } from 'millrace';
import { describe, expect, it } from 'vitest';
import { rejection } from './lab.ts';

type Env = Parameters<Parameters<typeof job>[1]>[0];
const later = (): never => Promise.resolve(1) as never;
const ofKey = (env: Env) => env.fromArray('in', [1, 2], { timestamp: (v) => v }).keyBy(() => 'k');
const aggregate = (part: Partial<AggregateFunction<number, number, number>>): AggregateFunction<number, number, number> => ({
  create: () => 0,
  add: (held, v) => held + v,
  merge: (left, right) => left + right,
  result: (held) => held,
  ...part,
});
const record = { onRecord() {} };

describe('protocols 10: an async handler compiles, and then writes under another record’s key', () => {
  const cases: Record<string, (env: Env) => unknown> = {
    'process onRecord': (env) => ofKey(env).process('op', { onRecord: later }),
    'unkeyed process onRecord': (env) => env.fromArray('in', [1]).process('op', { onRecord: later }),
    'process onTimer': (env) => ofKey(env).process('op', { onRecord: (_v, ctx) => ctx.timers.event.set(5), onTimer: later }),
    'process onStart': (env) => ofKey(env).process('op', { ...record, onStart: later }),
    'process onWatermark': (env) => ofKey(env).process('op', { ...record, onWatermark: later }),
    'process onEnd': (env) => ofKey(env).process('op', { ...record, onEnd: later }),
    reduce: (env) => ofKey(env).reduce('op', later),
    'window reduce': (env) => ofKey(env).window(tumbling(10)).reduce('op', later),
    'aggregate add': (env) => ofKey(env).aggregate('op', aggregate({ add: later })),
    'aggregate result': (env) => ofKey(env).aggregate('op', aggregate({ result: later })),
    'window aggregate add': (env) =>
      ofKey(env)
        .window(tumbling(10))
        .aggregate('op', aggregate({ add: later })),
    'window aggregate result': (env) =>
      ofKey(env)
        .window(tumbling(10))
        .aggregate('op', aggregate({ result: later })),
    'window aggregate merge': (env) =>
      ofKey(env)
        .window(sliding(10, 5))
        .aggregate('op', aggregate({ merge: later })),
    'key function': (env) =>
      env
        .fromArray('in', [1])
        .keyBy(later)
        .reduce('op', (l) => l),
    filter: (env) =>
      env
        .fromArray('op', [1])
        .filter(later)
        .forEach('out', () => {}),
    flatMap: (env) =>
      env
        .fromArray('op', [1])
        .flatMap(later)
        .forEach('out', () => {}),
  };
  for (const [name, build] of Object.entries(cases)) {
    it(`${name} that returns a promise fails its record with HANDLER_IS_ASYNC`, async () => {
      const error = await rejection(job('async', (env) => void build(env)).run());
      expect(error).toMatchObject({ code: 'HANDLER_IS_ASYNC', retryable: false });
      expect(error.todo).toMatch(/synchronous/);
      if (!['filter', 'flatMap'].includes(name)) expect(error.uid).toBe('op');
    });
  }

  it('a rejected promise of a handler is not an unhandled rejection besides', async () => {
    const unhandled: unknown[] = [];
    const listener = (reason: unknown): void => void unhandled.push(reason);
    process.on('unhandledRejection', listener);
    await rejection(
      job('async', (env) => {
        ofKey(env).process('op', { onRecord: (() => Promise.reject(new Error('late'))) as never });
      }).run(),
    );
    await new Promise((resolve) => setImmediate(resolve));
    process.off('unhandledRejection', listener);
    expect(unhandled).toEqual([]);
  });

  it('a context used after its handler has returned throws CONTEXT_USED_OUTSIDE_RECORD, whatever is used of it', async () => {
    const errors: Record<string, unknown> = {};
    const uses: Record<
      string,
      (ctx: RecordContext<unknown, { n: { get(): unknown; set(n: number): void } }> & { key?: unknown; timers?: unknown }) => unknown
    > = {
      key: (ctx) => ctx.key,
      timestamp: (ctx) => ctx.timestamp,
      state: (ctx) => ctx.state,
      emit: (ctx) => ctx.emit(1),
      side: (ctx) => ctx.side('other', 1),
      timers: (ctx) => (ctx as { timers: { event: { set(at: number): void } } }).timers.event.set(1),
    };
    let done!: () => void;
    const used = new Promise<void>((resolve) => {
      done = resolve;
    });
    await job('after', (env) => {
      ofKey(env).process<unknown, { n: ReturnType<typeof value<number>> }>('op', {
        state: { n: value<number>() },
        onRecord(_v, ctx) {
          const { state } = ctx;
          void Promise.resolve().then(() => {
            const attempt = (name: string, use: () => unknown): void => {
              try {
                use();
                errors[name] = 'nothing thrown';
              } catch (error) {
                errors[name] = (error as { code?: string }).code;
              }
            };
            for (const [name, use] of Object.entries(uses)) attempt(name, () => use(ctx as never));
            attempt('a handle kept from before', () => state.n.set(7));
            attempt('a read by a handle kept from before', () => state.n.get());
            done();
          });
        },
      });
    }).run({ state: memory() });
    await used;
    expect(new Set(Object.values(errors))).toEqual(new Set(['CONTEXT_USED_OUTSIDE_RECORD']));
    expect(Object.keys(errors)).toHaveLength(8);
  });

  for (const handler of ['onStart', 'onWatermark', 'onEnd'] as const) {
    it(`${handler} has no key, no keyed state and no timers`, async () => {
      for (const use of [(ctx: { key?: unknown }) => ctx.key, (ctx: { state?: unknown }) => ctx.state]) {
        const error = await rejection(
          job('without', (env) => {
            ofKey(env).process('op', { ...record, [handler]: (...args: unknown[]) => void use(args.at(-1) as never) });
          }).run(),
        );
        expect(error).toMatchObject({ code: 'CONTEXT_USED_OUTSIDE_RECORD', uid: 'op' });
      }
    });
  }
});
