import { type DeadLetter, type ErrorPolicy, job, type MillraceError, type RunOptions, value } from 'millrace';
import { describe, expect, it } from 'vitest';
import { checkpointsIn, ends, Feed, RESTARTS, rejection, Store, temporaryFolder, Watch } from '../protocols/lab.ts';

const no = (what: string): never => {
  throw new TypeError(`no ${what}`);
};

/** Running counts of a key; what is 'bad' fails in the reducer. */
function counting(feed: Feed<string>, store: Store<string>, policy: Parameters<ReturnType<typeof chain>['onError']>[0] = 'restart') {
  return job('counting', (env) => {
    chain(env, feed).onError(policy).sink('out', store);
  });
}
function chain(env: Parameters<Parameters<typeof job>[1]>[0], feed: Feed<string>) {
  return env
    .source('in', feed)
    .keyBy((v) => v.slice(0, 1))
    .process<string, { n: ReturnType<typeof value<number>> }>('counts', {
      state: { n: value<number>() },
      onRecord(v, ctx) {
        ctx.state.n.set((ctx.state.n.get() ?? 0) + 1);
        ctx.emit(`${ctx.key} ${ctx.state.n.get()}`);
        if (v.endsWith('!')) no(v);
      },
    });
}

describe('dead letters that are read', () => {
  it('fail under the policy of their reader: what it skips is kept, and the job goes on', async () => {
    const watch = new Watch();
    const store = new Store<number>();
    const seen: string[] = [];
    const result = await job('letters', (env) => {
      const checked = env
        .source('in', new Feed<number>().push([1, 2, 3, 4]).end())
        .map((v) => (v % 2 === 0 ? no(String(v)) : v))
        .onError('skip');
      checked
        .deadLetters()
        .map((letter) => (letter.record === 2 ? no('reader') : letter.error.message))
        .onError('skip')
        .forEach('seen', (message) => {
          seen.push(message);
        });
      checked.sink('out', store);
    }).run({ checkpoints: checkpointsIn(await temporaryFolder()), onEvent: watch.onEvent });
    expect(result).toMatchObject({ status: 'finished', restarts: 0 });
    expect(store.records).toEqual([1, 3]);
    expect(seen).toEqual(['no 4']);
    expect(watch.of('dead-letter').map((e) => e.deadLetter.error.message)).toEqual(['no 2', 'no reader', 'no 4']);
  });
});

describe('onError restart (the default)', () => {
  it('restarts with backoff until the intensity is spent, then fails, naming operator, key and cause', async () => {
    const folder = await temporaryFolder();
    const watch = new Watch();
    const store = new Store<string>();
    const restarts: RunOptions['restarts'] = { max: 3, within: 60_000, backoff: { initial: 1, max: 2 } };
    const running = ends(
      await counting(new Feed<string>().push(['a', 'a!']).end(), store).start({ checkpoints: checkpointsIn(folder), restarts, onEvent: watch.onEvent }),
    );
    const error = await rejection(running.finished);
    expect(error).toMatchObject({ code: 'USER_FUNCTION_FAILED', uid: 'counts', retryable: true } satisfies Partial<MillraceError>);
    expect(error.cause).toBeInstanceOf(TypeError);
    expect((error.cause as Error).message).toBe('no a!');
    expect(error.message).toMatch(/'counts' failed on key "a": no a!/);
    expect(error.message).toMatch(/gave up after 3 restarts/);
    expect(watch.of('restart').map((e) => [e.uid, e.count, e.error.code])).toEqual([1, 2, 3].map((n) => ['counts', n, 'USER_FUNCTION_FAILED']));
    expect(watch.of('status').map((e) => e.status)).toEqual(['running', 'restarting', 'running', 'restarting', 'running', 'restarting', 'running', 'failed']);
    expect(running.status).toBe('failed');
    expect(store.records).toEqual([]);
  });

  it('fails at the first error without checkpoints, unless restarts are asked for', async () => {
    const watch = new Watch();
    const error = await rejection(counting(new Feed<string>().push(['a!']).end(), new Store()).run({ onEvent: watch.onEvent }));
    expect(error).toMatchObject({ code: 'USER_FUNCTION_FAILED', uid: 'counts' });
    expect(watch.of('restart')).toEqual([]);
  });

  it('forgets what came after the last checkpoint, so that nothing is counted twice', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<string>();
    const store = new Store<string>();
    const watch = new Watch();
    let failures = 0;
    const running = ends(
      await job('once', (env) => {
        chain(env, feed)
          .map((v) => (v === 'a 3' && failures++ < 2 ? no(v) : v))
          .sink('out', store);
      }).start({ checkpoints: checkpointsIn(folder), restarts: RESTARTS, onEvent: watch.onEvent }),
    );
    await feed.push(['a', 'b']).taken();
    await running.checkpoint();
    feed.push(['a', 'a', 'b']).end();
    expect((await running.finished).restarts).toBe(2);
    expect(store.records).toEqual(['a 1', 'b 1', 'a 2', 'a 3', 'b 2']);
  });

  it('an error that cannot heal is not tried again', async () => {
    const watch = new Watch();
    const folder = await temporaryFolder();
    const error = await rejection(
      job(
        'keys',
        (env) =>
          void env
            .fromArray('in', [1])
            .keyBy(() => ({}) as never)
            .reduce('sum', (a) => a),
      ).run({
        checkpoints: checkpointsIn(folder),
        onEvent: watch.onEvent,
      }),
    );
    expect(error.code).toBe('KEY_UNSUPPORTED');
    expect(watch.of('restart')).toEqual([]);
  });

  it('a timer names its key, too', async () => {
    const error = await rejection(
      job('timers', (env) => {
        env
          .fromArray('in', [1], { timestamp: (v) => v })
          .keyBy(() => ['k', 7n] as const)
          .process('timed', { onRecord: (_v, ctx) => ctx.timers.event.set(5), onTimer: () => no('timer') });
      }).run(),
    );
    expect(error).toMatchObject({ code: 'USER_FUNCTION_FAILED', uid: 'timed' });
    expect(error.message).toContain('on key ["k","7n"]');
  });
});

describe('onError skip', () => {
  it('undoes state and output of the record, keeps a dead letter, counts it, and everything else flows', async () => {
    const folder = await temporaryFolder();
    const store = new Store<string>();
    const watch = new Watch();
    const feed = new Feed<string>();
    const running = ends(await counting(feed, store, 'skip').start({ checkpoints: checkpointsIn(folder), onEvent: watch.onEvent }));
    await feed.push(['a', 'a!', 'a', 'b!', 'b']).taken();
    await running.checkpoint();
    await store.until((r) => r.length === 3);
    expect(store.records).toEqual(['a 1', 'a 2', 'b 1']);
    expect(watch.of('dead-letter').map(({ deadLetter: d }) => [d.uid, d.record, d.key, d.error.name, d.error.message])).toEqual([
      ['counts', 'a!', 'a', 'TypeError', 'no a!'],
      ['counts', 'b!', 'b', 'TypeError', 'no b!'],
    ]);
    expect((await running.metrics()).filter((m) => m.name === 'deadLetters' && m.value > 0).map((m) => [m.labels['task'], m.value])).toEqual([['counts-0', 2]]);
    feed.end();
    await running.finished;
  });

  it('gives the letters to deadLetters() where that is read, with the checkpoint before them', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<string>();
    const store = new Store<DeadLetter>();
    const running = ends(
      await job('letters', (env) => {
        const counts = chain(env, feed).onError('skip');
        counts.forEach('out', () => {});
        counts.deadLetters().sink('letters', store);
      }).start({ checkpoints: checkpointsIn(folder) }),
    );
    await feed.push(['a']).taken();
    const { id } = await running.checkpoint();
    feed.push(['a!']).end();
    await running.finished;
    expect(store.records).toMatchObject([{ uid: 'counts', record: 'a!', key: 'a', checkpoint: id, error: { name: 'TypeError', message: 'no a!' } }]);
  });

  for (const [name, at] of [
    ['map', 1],
    ['filter', 2],
    ['flatMap', 3],
    ['key function', 4],
    ['reduce', 5],
  ] as const) {
    it(`skips what fails in a ${name} of a chain, whichever operator of it fails`, async () => {
      const out: number[] = [];
      const fail = (where: number, v: number): void => {
        if (where === at && v === 2) no('two');
      };
      const watch = new Watch();
      await job('chain', (env) => {
        env
          .fromArray('in', [1, 2, 3])
          .map((v) => {
            fail(1, v);
            return v;
          })
          .onError('skip')
          .filter((v) => {
            fail(2, v);
            return true;
          })
          .onError('skip')
          .flatMap((v) => {
            fail(3, v);
            return [v];
          })
          .onError('skip')
          .keyBy((v) => {
            fail(4, v);
            return 'k';
          })
          .reduce('sum', (l, r) => {
            fail(5, r);
            return l + r;
          })
          .onError('skip')
          .forEach('out', (v) => void out.push(v));
      }).run({ onEvent: watch.onEvent });
      expect(out).toEqual([1, 4]);
      expect(watch.of('dead-letter').map((e) => e.deadLetter.record)).toEqual([2]);
    });
  }

  it('does not skip what fails in an operator of the chain that has another policy', async () => {
    const error = await rejection(
      job('mixed', (env) => {
        env
          .fromArray('in', [1])
          .map((v) => v)
          .onError('skip')
          .map(() => no('map'))
          .forEach('out', () => {})
          .onError('skip');
      }).run(),
    );
    expect(error).toMatchObject({ code: 'USER_FUNCTION_FAILED', uid: 'map.2' });
  });

  it('of the head does not swallow a sink that cannot be opened or written: its failure names the sink', async () => {
    for (const sink of [
      { open: async () => no('connection') },
      {
        open: async () => ({ write: () => no('disk'), async flush() {}, async close() {} }),
      },
      {
        open: async () => ({ write: async () => no('disk'), async flush() {}, async close() {} }),
      },
      {
        open: async () => ({ write() {}, flush: async () => no('disk'), async close() {} }),
      },
    ]) {
      const error = await rejection(
        job('sinks', (env) => {
          env
            .fromArray('in', [1])
            .onError('skip')
            .map((v) => v)
            .onError('skip')
            .sink('out', sink);
        }).run({ restarts: { max: 1, within: 60_000, backoff: { initial: 1, max: 1 } } }),
      );
      expect(error).toMatchObject({ code: 'SINK_FAILED', uid: 'out' });
      expect(error.cause).toBeInstanceOf(TypeError);
    }
  }, 20_000);

  it('keeps the newest 1,000 letters that nobody reads over a restart', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const build = job('many', (env) => {
      env
        .source('in', feed)
        .map((v) => no(String(v)))
        .onError('skip')
        .forEach('out', () => {});
    });
    const first = ends(await build.start({ checkpoints: checkpointsIn(folder) }));
    await feed.push(Array.from({ length: 1500 }, (_, i) => i)).taken();
    await first.stop();
    const { readMetadata } = await import('../../src/checkpoint/metadata.ts');
    const { directory } = await import('../../src/storage/directory.ts');
    const metadata = await readMetadata(directory('.'), (await first.finished).checkpoint!.path);
    const snapshot = metadata.tasks.flatMap((t) => Object.values(t.operators)).find((o) => o.deadLetters !== undefined);
    expect(snapshot?.deadLetters?.map((l) => l.record)).toEqual(Array.from({ length: 1000 }, (_, i) => i + 500));
    expect(snapshot?.deadLettersDropped).toBe(500);
  });
});

describe('onError stop', () => {
  for (const where of ['source', 'keyed'] as const) {
    it(`in a ${where} chain ends the job in front of the record, with the error as cause; the next start meets it again`, async () => {
      const folder = await temporaryFolder();
      const feed = new Feed<string>({ bounded: false });
      const store = new Store<string>();
      let heal = false;
      const build = job('stopping', (env) => {
        const mark = (v: string): string => (v === '2!' && !heal ? no(v) : v);
        const input = env.source('in', feed);
        if (where === 'source') input.map(mark).onError('stop').sink('out', store);
        else
          input
            .keyBy(() => 'k')
            .map(mark)
            .onError('stop')
            .sink('out', store);
      });
      const first = ends(await build.start({ checkpoints: checkpointsIn(folder) }));
      feed.push(['1', '2!', '3']);
      const result = await first.finished;
      expect(result.status).toBe('stopped');
      expect(result.cause).toMatchObject({ message: 'no 2!' });
      const second = ends(await build.start({ checkpoints: checkpointsIn(folder) }));
      expect((await second.finished).cause).toMatchObject({ message: 'no 2!' });
      heal = true;
      const third = ends(await build.start({ checkpoints: checkpointsIn(folder) }));
      await feed.taken();
      await third.stop();
      expect(store.records).toEqual(['1', '2!', '3']);
    });
  }
});

describe('onError escalate', () => {
  it('fails at once, whatever restarts are left', async () => {
    const watch = new Watch();
    const error = await rejection(counting(new Feed<string>().push(['a!']).end(), new Store(), 'escalate').run({ restarts: RESTARTS, onEvent: watch.onEvent }));
    expect(error).toMatchObject({ code: 'USER_FUNCTION_FAILED', uid: 'counts' });
    expect(watch.of('restart')).toEqual([]);
  });
});

describe('a policy that is a function', () => {
  it('is given error, operator, record, key and attempt, and decides record by record', async () => {
    const folder = await temporaryFolder();
    const asked: unknown[] = [];
    const store = new Store<string>();
    const policy = (error: unknown, context: { uid: string; record: unknown; key?: unknown; attempt: number }): ErrorPolicy => {
      asked.push([(error as Error).message, context.uid, context.record, context.key, context.attempt]);
      return context.attempt < 3 ? 'restart' : 'skip';
    };
    const result = await counting(new Feed<string>().push(['a', 'a!', 'b']).end(), store, policy).run({
      checkpoints: checkpointsIn(folder),
      restarts: RESTARTS,
    });
    expect(result.restarts).toBe(2);
    expect(store.records).toEqual(['a 1', 'b 1']);
    expect(asked).toEqual([1, 2, 3].map((attempt) => ['no a!', 'counts', 'a!', 'a', attempt]));
  });

  it('that throws itself fails the job with its own error', async () => {
    const error = await rejection(counting(new Feed<string>().push(['a!']).end(), new Store(), () => no('policy')).run());
    expect(error.message).toContain('no policy');
    expect(error.uid).toBe('counts');
  });
});

describe('forEach', () => {
  for (const later of [false, true]) {
    const each = (seen: number[]) => (v: number) => {
      const act = (): void => {
        if (v === 2) no('two');
        seen.push(v);
      };
      return later ? Promise.resolve().then(act) : act();
    };
    const build = (seen: number[], policy: ErrorPolicy) => job('each', (env) => void env.fromArray('in', [1, 2, 3]).forEach('out', each(seen)).onError(policy));
    const kind = later ? 'a promise' : 'a call';

    it(`skips ${kind} that fails and goes on with the next record, in order`, async () => {
      const seen: number[] = [];
      const watch = new Watch();
      await build(seen, 'skip').run({ onEvent: watch.onEvent });
      expect(seen).toEqual([1, 3]);
      expect(watch.of('dead-letter').map((e) => e.deadLetter.record)).toEqual([2]);
    });

    it(`names operator and cause where ${kind} fails, and gives up by policy`, async () => {
      for (const policy of ['restart', 'escalate'] as const) {
        const watch = new Watch();
        const error = await rejection(build([], policy).run({ restarts: { max: 1, within: 60_000, backoff: { initial: 1, max: 1 } }, onEvent: watch.onEvent }));
        expect(error).toMatchObject({ code: 'USER_FUNCTION_FAILED', uid: 'out' });
        expect((error.cause as Error).message).toBe('no two');
        expect(watch.of('restart')).toHaveLength(policy === 'restart' ? 1 : 0);
      }
      expect(await build([], 'stop').run()).toMatchObject({ status: 'stopped', cause: { message: 'no two' } });
    });
  }

  it('a promise holds the next record back', async () => {
    const order: string[] = [];
    await job('each', (env) => {
      env.fromArray('in', [1, 2, 3]).forEach('out', async (v) => {
        order.push(`begin ${v}`);
        await new Promise((resolve) => setImmediate(resolve));
        order.push(`end ${v}`);
      });
    }).run();
    expect(order).toEqual(['begin 1', 'end 1', 'begin 2', 'end 2', 'begin 3', 'end 3']);
  });
});
