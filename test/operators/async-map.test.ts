import { type DeadLetter, job, type Stream, sum, tumbling } from 'millrace';
import { describe, expect, it } from 'vitest';
import { Conditions, checkpointsIn, ends, Feed, RESTARTS, rejection, Seen, Store, temporaryFolder, Watch } from '../protocols/lab.ts';

type Options = NonNullable<Parameters<Stream<number>['asyncMap']>[2]>;

/** Somebody outside whose answers the test gives. */
class Outside<T, R> {
  readonly asked: T[] = [];
  readonly signals: AbortSignal[] = [];
  readonly #open: { readonly value: T; readonly resolve: (result: R) => void; readonly reject: (error: unknown) => void }[] = [];
  readonly #conditions = new Conditions();
  most = 0;

  readonly ask = (value: T, signal: AbortSignal): Promise<R> => {
    this.asked.push(value);
    this.signals.push(signal);
    return new Promise((resolve, reject) => {
      this.#open.push({ value, resolve, reject });
      this.most = Math.max(this.most, this.#open.length);
      this.#conditions.changed();
    });
  };

  until(count: number): Promise<void> {
    return this.#conditions.until(() => this.asked.length >= count);
  }
  get open(): T[] {
    return this.#open.map((o) => o.value);
  }
  #take(value: T) {
    const at = this.#open.findIndex((o) => o.value === value);
    if (at === -1) throw new Error(`${String(value)} is not open`);
    return this.#open.splice(at, 1)[0]!;
  }
  answer(value: T, result: R): this {
    this.#take(value).resolve(result);
    return this;
  }
  refuse(value: T, error: unknown): this {
    this.#take(value).reject(error);
    return this;
  }
}

const tick = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

async function outputOf(values: number[], fn: (value: number, signal: AbortSignal) => Promise<unknown>, options: Options = {}): Promise<unknown[]> {
  const out: unknown[] = [];
  await job('asking', (env) => {
    env
      .fromArray('in', values)
      .asyncMap('ask', fn, options)
      .forEach('out', (v) => void out.push(v));
  }).run();
  return out;
}

describe('asyncMap', () => {
  it('emits in the order of the records by default, whoever answers first', async () => {
    const outside = new Outside<number, string>();
    const done = outputOf([1, 2, 3], outside.ask);
    await outside.until(3);
    outside.answer(3, 'c');
    await tick();
    outside.answer(1, 'a');
    await tick();
    outside.answer(2, 'b');
    expect(await done).toEqual(['a', 'b', 'c']);
  });

  it('emits as answers come where it is unordered', async () => {
    const outside = new Outside<number, string>();
    const done = outputOf([1, 2, 3], outside.ask, { ordered: false });
    await outside.until(3);
    for (const [value, result] of [
      [3, 'c'],
      [1, 'a'],
      [2, 'b'],
    ] as const) {
      outside.answer(value, result);
      await tick();
    }
    expect(await done).toEqual(['c', 'a', 'b']);
  });

  it('takes what is no promise as an answer, undefined included', async () => {
    expect(await outputOf([1, 2], ((v: number) => (v === 1 ? 'plain' : undefined)) as never)).toEqual(['plain', undefined]);
  });

  for (const ordered of [true, false]) {
    it(`asks no more than capacity at once, ${ordered ? 'ordered' : 'unordered'}`, async () => {
      let open = 0;
      let most = 0;
      const ask = async (v: number): Promise<number> => {
        most = Math.max(most, ++open);
        await tick();
        open -= 1;
        return v;
      };
      const values = Array.from({ length: 1000 }, (_, i) => i);
      const out = await outputOf(values, ask, { ordered, capacity: 7 });
      expect((out as number[]).toSorted((a, b) => a - b)).toEqual(values);
      expect(most).toBe(7);
    });
  }

  it('brings 10,000 records through a capacity of 1, in order', async () => {
    const values = Array.from({ length: 10_000 }, (_, i) => i);
    expect(await outputOf(values, async (v) => v, { capacity: 1 })).toEqual(values);
  });

  it('keeps the order of each key on a keyed stream, at any parallelism', async () => {
    for (const parallelism of [1, 3]) {
      const seen = new Map<string, number[]>();
      await job('keyed', (env) => {
        env
          .fromArray(
            'in',
            Array.from({ length: 300 }, (_, i) => ({ key: `k${i % 7}`, i })),
          )
          .parallelism(1)
          .keyBy((v) => v.key)
          .asyncMap('ask', async (v) => {
            for (let n = 0; n < (v.i * 7) % 5; n++) await tick();
            return v;
          })
          .forEach('out', ({ key, i }) => void seen.set(key, [...(seen.get(key) ?? []), i]));
      }).run({ parallelism });
      expect(seen.size).toBe(7);
      for (const all of seen.values()) expect(all).toEqual(all.toSorted((a, b) => a - b));
      expect([...seen.values()].flat()).toHaveLength(300);
    }
  });
});

describe('asyncMap and event time', () => {
  for (const ordered of [true, false]) {
    it(`lets no result pass a watermark, ${ordered ? 'ordered' : 'unordered'}: no record comes too late`, async () => {
      const values = Array.from({ length: 200 }, (_, i) => i);
      const feed = new Feed<number>();
      for (const v of values) feed.push([v]);
      const windows: [number, number][] = [];
      const late: number[] = [];
      await job('timed', (env) => {
        const sums = env
          .source('in', feed.end(), { timestamp: (v) => v })
          .asyncMap(
            'ask',
            async (v) => {
              for (let n = 0; n < (v * 13) % 11; n++) await tick();
              return v;
            },
            { ordered, capacity: 30 },
          )
          .keyBy(() => 'k')
          .window(tumbling(10))
          .aggregate(
            'sums',
            sum((v) => v),
          );
        sums.forEach('out', (w) => void windows.push([w.start, w.value]));
        sums.late().forEach('late', (v) => void late.push(v as number));
      }).run();
      expect(late).toEqual([]);
      expect(windows).toEqual(Array.from({ length: 20 }, (_, i) => [i * 10, 10 * (i * 10) + 45]));
    });
  }

  it('keeps the timestamps of the records', async () => {
    const seen = new Seen<string>();
    await job('stamps', (env) => {
      env
        .fromArray('in', [5, 3], { timestamp: (v) => v * 10 })
        .asyncMap('ask', async (v) => `v${v}`)
        .sink('out', seen);
    }).run();
    expect(seen.values.map((v, i) => `${v} at ${seen.timestamps[i]}`)).toEqual(['v5 at 50', 'v3 at 30']);
  });

  it('holds the end of data, and the final watermark, until the last answer', async () => {
    const outside = new Outside<number, number>();
    const out: number[] = [];
    const done = job('held', (env) => {
      env
        .fromArray('in', [1, 2], { timestamp: (v) => v })
        .asyncMap('ask', outside.ask)
        .keyBy(() => 'k')
        .window(tumbling(10))
        .aggregate(
          'sums',
          sum((v) => v),
        )
        .forEach('out', (w) => void out.push(w.value));
    }).run();
    await outside.until(2);
    for (let i = 0; i < 20; i++) await tick();
    expect(out).toEqual([]);
    outside.answer(2, 20).answer(1, 10);
    await done;
    expect(out).toEqual([30]);
  });
});

describe('an asyncMap that fails', () => {
  function skipping(fn: (value: number, signal: AbortSignal) => Promise<unknown>, options: Options = {}): Promise<{ out: unknown[]; letters: DeadLetter[] }> {
    const out: unknown[] = [];
    const letters: DeadLetter[] = [];
    return job('skipping', (env) => {
      const asked = env
        .fromArray('in', [1, 2, 3], { timestamp: (v) => v * 100 })
        .asyncMap('ask', fn, options)
        .onError('skip');
      asked.deadLetters().forEach('letters', (l) => void letters.push(l));
      asked.forEach('out', (v) => void out.push(v));
    })
      .run()
      .then(() => ({ out, letters }));
  }

  const ways: [string, (v: number) => Promise<unknown>][] = [
    [
      'by throwing at once',
      (v) => {
        if (v === 2) throw new RangeError('no');
        return Promise.resolve(v);
      },
    ],
    ['by a rejection', async (v) => (v === 2 ? Promise.reject(new RangeError('no')) : v)],
  ];
  for (const [how, fn] of ways) {
    for (const ordered of [true, false]) {
      it(`${how} makes a dead letter of its input under skip, ${ordered ? 'ordered' : 'unordered'}`, async () => {
        const { out, letters } = await skipping(fn, { ordered });
        expect(out).toEqual([1, 3]);
        expect(letters).toMatchObject([{ uid: 'ask', record: 2, timestamp: 200, error: { name: 'RangeError', message: 'no' } }]);
      });
    }
    it(`${how} fails the job under restart, naming the operator`, async () => {
      const error = await rejection(outputOf([1, 2, 3], fn));
      expect(error).toMatchObject({ code: 'USER_FUNCTION_FAILED', uid: 'ask', cause: { message: 'no' } });
    });
  }

  it('is asked for its policy with the error and the record, and the key of a keyed one', async () => {
    const asked: unknown[] = [];
    await job('policy', (env) => {
      env
        .fromArray('in', ['x'])
        .keyBy((v) => `key of ${v}`)
        .asyncMap('ask', () => Promise.reject(new Error('no')))
        .onError((error, context) => {
          asked.push((error as Error).message, context);
          return 'skip';
        })
        .forEach('out', () => {});
    }).run();
    expect(asked).toEqual(['no', { uid: 'ask', record: 'x', key: 'key of x', attempt: 1 }]);
  });

  it('under escalate fails the job at once, whatever restarts are left', async () => {
    const running = job('escalates', (env) => {
      env
        .fromArray('in', [1])
        .asyncMap('ask', () => Promise.reject(new Error('no')))
        .onError('escalate')
        .forEach('out', () => {});
    }).run({ restarts: RESTARTS });
    expect((await rejection(running)).message).toContain('no');
  });

  it('under stop ends the job with the error as its cause', async () => {
    const result = await job('stops', (env) => {
      env
        .fromArray('in', [1])
        .asyncMap('ask', () => Promise.reject(new Error('no')))
        .onError('stop')
        .forEach('out', () => {});
    }).run();
    expect(result).toMatchObject({ status: 'stopped', cause: { message: 'no' } });
  });

  it('behind it, a result that fails under skip is one unit: its dead letter names the failing operator and its record', async () => {
    const letters: DeadLetter[] = [];
    const out: number[] = [];
    await job('behind', (env) => {
      const mapped = env
        .fromArray('in', [1, 2, 3])
        .asyncMap('ask', async (v) => [v * 10, v * 10 + 1])
        .flatMap((all) => [...all])
        .map((v) => {
          if (v === 21) throw new Error('odd one');
          return v;
        })
        .onError('skip');
      mapped.deadLetters().forEach('letters', (l) => void letters.push(l));
      mapped.forEach('out', (v) => void out.push(v));
    }).run();
    expect(out).toEqual([10, 11, 30, 31]);
    expect(letters).toMatchObject([{ record: 2, error: { message: 'odd one' } }]);
  });
});

describe('the timeout of asyncMap', () => {
  it('aborts the signal, makes ASYNC_TIMEOUT of the record, and ignores what comes later', async () => {
    const signals: AbortSignal[] = [];
    const letters: DeadLetter[] = [];
    const out: unknown[] = [];
    let late: ((v: string) => void) | undefined;
    await job('timeouts', (env) => {
      const asked = env
        .fromArray('in', [1, 2])
        .asyncMap(
          'ask',
          (v, signal) => {
            if (v === 2) return Promise.resolve('two');
            signals.push(signal);
            return new Promise<string>((resolve) => {
              late = resolve;
              signal.addEventListener('abort', () => resolve('too late'));
            });
          },
          { timeout: 5 },
        )
        .onError('skip');
      asked.deadLetters().forEach('letters', (l) => void letters.push(l));
      asked.forEach('out', (v) => void out.push(v));
    }).run();
    late!('much too late');
    expect(out).toEqual(['two']);
    expect(signals.map((s) => s.aborted)).toEqual([true]);
    expect(signals[0]!.reason).toMatchObject({ code: 'ASYNC_TIMEOUT' });
    expect(letters).toMatchObject([{ uid: 'ask', record: 1, error: { code: 'ASYNC_TIMEOUT' } }]);
  });

  it('is for a record, retries included', async () => {
    let tries = 0;
    const error = await rejection(
      outputOf(
        [1],
        () => {
          tries += 1;
          return Promise.reject(new Error('busy'));
        },
        { timeout: 20, retry: { attempts: 1000, backoff: { initial: 3600_000, max: 3600_000 } } },
      ),
    );
    expect(error).toMatchObject({ code: 'ASYNC_TIMEOUT', uid: 'ask', retryable: true });
    expect(tries).toBe(1);
  });
});

describe('retries of asyncMap', () => {
  const soon = { initial: 1, max: 1, factor: 1, jitter: 0 };

  it('ask again as often as said, also where the function throws at once, and then fail with the last error', async () => {
    let tries = 0;
    const error = await rejection(
      outputOf(
        [1],
        () => {
          tries += 1;
          throw new Error(`try ${tries}`);
        },
        { retry: { attempts: 3, backoff: soon } },
      ),
    );
    expect(error).toMatchObject({ cause: { message: 'try 3' } });
    expect(tries).toBe(3);
  });

  it('succeed where a later try does', async () => {
    const failed = new Set<number>();
    const ask = async (v: number): Promise<number> => {
      if (failed.has(v)) return v * 10;
      failed.add(v);
      throw new Error('once');
    };
    expect(await outputOf([1, 2, 3], ask, { retry: { attempts: 2, backoff: soon } })).toEqual([10, 20, 30]);
  });

  it('are made of errors that are worth it only; a retryable that throws is the failure of its record', async () => {
    const asked: unknown[] = [];
    const of = (retryable: (error: unknown) => boolean) =>
      rejection(
        outputOf(
          [1],
          (v) => {
            asked.push(v);
            return Promise.reject(new TypeError('wrong'));
          },
          { retry: { attempts: 5, backoff: soon, retryable } },
        ),
      );
    expect(await of((error) => !(error instanceof TypeError))).toMatchObject({ cause: { message: 'wrong' } });
    expect(
      await of(() => {
        throw new Error('who knows');
      }),
    ).toMatchObject({ cause: { message: 'who knows' } });
    expect(asked).toEqual([1, 1]);
  });
});

describe('asyncMap, checkpoints and restarts', () => {
  function asking(feed: Feed<number>, store: Store<string>, ask: (v: number, signal: AbortSignal) => Promise<string>, options: Options = {}, keyed = false) {
    return job('asking', (env) => {
      const input = env.source('in', feed);
      (keyed ? input.keyBy((v) => v % 17) : input).asyncMap('ask', ask, options).sink('out', store);
    });
  }

  it('a barrier waits behind a record that finds no room, and passes when there is', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const store = new Store<string>();
    const outside = new Outside<number, string>();
    const running = ends(await asking(feed, store, outside.ask, { capacity: 1 }).start({ checkpoints: checkpointsIn(folder) }));
    await feed.push([1, 2]).taken();
    await outside.until(1);
    let passed = false;
    const checkpoint = running.checkpoint().then(() => {
      passed = true;
    });
    for (let i = 0; i < 50; i++) await tick();
    expect(passed).toBe(false);
    outside.answer(1, 'one');
    await outside.until(2);
    outside.answer(2, 'two');
    await checkpoint;
    await running.checkpoint();
    await store.until((all) => all.length === 2);
    await running.cancel();
    expect(store.records).toEqual(['one', 'two']);
  });

  it('a barrier passes open calls, whose records are in the snapshot and are asked again after a restart', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const store = new Store<string>();
    const watch = new Watch();
    const outside = new Outside<number, string>();
    const running = ends(await asking(feed, store, outside.ask).start({ checkpoints: checkpointsIn(folder), restarts: RESTARTS, onEvent: watch.onEvent }));
    await feed.push([1, 2, 3]).taken();
    await outside.until(3);
    outside.answer(1, 'one');
    await tick();
    await running.checkpoint();
    const before = [...outside.signals];
    outside.refuse(2, new Error('crash'));
    await watch.restarted();
    expect(before.map((s) => s.aborted)).toEqual([false, false, true]);
    await outside.until(5);
    expect(outside.asked.slice(3)).toEqual([2, 3]);
    // The promise of the old attempt: nobody hears it.
    outside.answer(3, 'old three');
    outside.answer(3, 'three').answer(2, 'two');
    await running.checkpoint();
    await running.checkpoint();
    await running.stop();
    expect(store.records).toEqual(['one', 'two', 'three']);
  });

  for (const ordered of [true, false]) {
    for (const keyed of [false, true]) {
      it(`crashes lose nothing and repeat nothing, ${ordered ? 'ordered' : 'unordered'}, ${keyed ? 'keyed' : 'plain'}`, async () => {
        const folder = await temporaryFolder();
        const feed = new Feed<number>();
        for (let b = 0; b < 40; b++) feed.push(Array.from({ length: 25 }, (_, i) => b * 25 + i));
        const store = new Store<string>();
        const crashes = new Set([100, 333, 700]);
        const ask = async (v: number): Promise<string> => {
          for (let n = 0; n < (v * 31) % 7; n++) await tick();
          if (crashes.delete(v)) throw new Error('crash');
          return `v${v}`;
        };
        const result = await asking(feed.end(), store, ask, { ordered, capacity: 20 }, keyed).run({
          parallelism: 2,
          checkpoints: { ...checkpointsIn(folder), every: 5 },
          restarts: RESTARTS,
        });
        expect(result.restarts).toBe(3);
        expect(store.records.toSorted()).toEqual(Array.from({ length: 1000 }, (_, i) => `v${i}`).toSorted());
      });
    }
  }

  it('a keyed one is restored at other parallelisms: every open record is asked again, by the instance of its key, and no more than capacity at once', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>();
    const store = new Store<string>();
    const options = { capacity: 50 };
    const values = Array.from({ length: 60 }, (_, i) => i);
    const three = new Outside<number, string>();
    const running = ends(await asking(feed, store, three.ask, options, true).start({ parallelism: 3, checkpoints: checkpointsIn(folder) }));
    await feed.push(values).taken();
    await three.until(60);
    await running.stop();
    const one = new Outside<number, string>();
    const again = ends(await asking(feed, store, one.ask, options, true).start({ parallelism: 1, checkpoints: checkpointsIn(folder) }));
    await one.until(50);
    for (let i = 0; i < 20; i++) await tick();
    expect(one.asked).toHaveLength(50);
    // It is full, and a barrier with no record in front of it passes all the same.
    await again.stop();
    const asked: number[] = [];
    feed.end();
    await asking(
      feed,
      store,
      async (v) => {
        asked.push(v);
        return `v${v}`;
      },
      options,
      true,
    ).run({ parallelism: 4, checkpoints: checkpointsIn(folder) });
    expect(asked.toSorted((a, b) => a - b)).toEqual(values);
    expect(store.records.toSorted()).toEqual(values.map((v) => `v${v}`).toSorted());
    for (let key = 0; key < 17; key++) {
      const of = asked.filter((v) => v % 17 === key);
      expect(of).toEqual(of.toSorted((a, b) => a - b));
    }
  });

  it('a plain one shares its open records out among the new instances', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>();
    const store = new Store<string>();
    const stuck = new Outside<number, string>();
    const running = ends(await asking(feed, store, stuck.ask).start({ parallelism: 1, checkpoints: checkpointsIn(folder) }));
    await feed.push([1, 2, 3, 4, 5, 6]).taken();
    await stuck.until(6);
    await running.stop();
    feed.end();
    await asking(feed, store, async (v) => `v${v}`).run({ parallelism: 3, checkpoints: checkpointsIn(folder) });
    expect(store.records.toSorted()).toEqual(['v1', 'v2', 'v3', 'v4', 'v5', 'v6']);
    expect(new Set(store.commits.map((c) => c.writer)).size).toBe(3);
  });

  it('a drain waits for the answers, and their windows fire', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const store = new Store<number>();
    const outside = new Outside<number, number>();
    const running = ends(
      await job('draining', (env) => {
        env
          .source('in', feed, { timestamp: (v) => v })
          .asyncMap('ask', outside.ask)
          .keyBy(() => 'k')
          .window(tumbling(1000))
          .aggregate(
            'sums',
            sum((v) => v),
          )
          .map((w) => w.value)
          .sink('out', store);
      }).start({ checkpoints: checkpointsIn(folder) }),
    );
    await feed.push([1, 2]).taken();
    await outside.until(2);
    const stopped = running.stop({ drain: true });
    for (let i = 0; i < 50; i++) await tick();
    outside.answer(1, 10).answer(2, 20);
    expect((await stopped).status).toBe('stopped');
    expect(store.records).toEqual([30]);
  });

  it('cancel aborts the signals of open calls', async () => {
    const outside = new Outside<number, string>();
    const running = ends(
      await asking(new Feed<number>({ bounded: false }).push([1, 2]), new Store<string>(), outside.ask).start({
        checkpoints: checkpointsIn(await temporaryFolder()),
      }),
    );
    await outside.until(2);
    expect(outside.signals.map((s) => s.aborted)).toEqual([false, false]);
    expect((await running.cancel()).status).toBe('cancelled');
    expect(outside.signals.map((s) => s.aborted)).toEqual([true, true]);
  });

  it('windows behind it count each record once and drop none, though it crashes while watermarks are held', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>();
    for (let i = 0; i < 300; i++) feed.push([i]);
    const store = new Store<string>();
    const crashes = new Set([50, 151, 222]);
    await job('windows', (env) => {
      env
        .source('in', feed.end(), { timestamp: (v) => v })
        .asyncMap(
          'ask',
          async (v) => {
            for (let n = 0; n < (v * 31) % 7; n++) await tick();
            if (crashes.delete(v)) throw new Error('crash');
            return v;
          },
          { ordered: false, capacity: 40 },
        )
        .keyBy((v) => v % 2)
        .window(tumbling(50))
        .aggregate(
          'sums',
          sum(() => 1),
        )
        .map((w) => `${w.start}/${w.key}: ${w.value}`)
        .sink('out', store);
    }).run({ checkpoints: { ...checkpointsIn(folder), every: 5 }, restarts: RESTARTS });
    expect(store.records.toSorted()).toEqual([0, 50, 100, 150, 200, 250].flatMap((start) => [0, 1].map((key) => `${start}/${key}: 25`)).toSorted());
  });
});

describe('options of asyncMap that mean nothing', () => {
  for (const options of [{ capacity: 0 }, { capacity: 1.5 }, { timeout: 0 }, { timeout: Number.NaN }, { retry: { attempts: 0 } }] as Options[]) {
    it(`are refused: ${JSON.stringify(options)}`, async () => {
      expect(await rejection(outputOf([1], async (v) => v, options))).toMatchObject({ code: 'OPTION_INVALID', uid: 'ask' });
    });
  }
});
