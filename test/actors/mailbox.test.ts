import { describe, expect, test } from 'vitest';
import { type ActorContext, type ActorRef, createSystem, defineActor } from '../../actors/index.ts';
import { testSystem } from '../../actors/testing.ts';
import { type Do, fail, probe, watching } from './probe.ts';

function world(seed = 5) {
  const log: unknown[] = [];
  return { ...testSystem({ seed, onFailure: () => {} }), log };
}

/** A receive that stays pending until it is released. */
function gate() {
  let release = () => {};
  return {
    wait: () =>
      new Promise<void>((resolve) => {
        release = resolve;
      }),
    release: () => release(),
  };
}

describe('receive', () => {
  test('takes messages in the order they were told', async () => {
    const { system, settle, log } = world();
    const ref = system.spawn(probe(log, 'a'));
    for (let i = 0; i < 200; i++) ref.tell(String(i));
    await settle();
    expect(log.slice(1)).toEqual(Array.from({ length: 200 }, (_, i) => `a got ${i}`));
  });

  test('may return a promise: the next message waits for it, control mail does not', async () => {
    const { system, settle, log } = world();
    const open = gate();
    const parent = system.spawn(probe(log, 'p'));
    parent.tell((ctx) => void ctx.spawn(probe(log, 'c'), { name: 'c' }).tell((child) => child.exit()));
    parent.tell(open.wait);
    parent.tell('next');
    await settle();
    expect(log).toEqual(['p starts', 'c starts', 'c stops: normal']);
    expect(system.status('/$1/c')).toBeUndefined();
    expect(system.status('/$1')?.mailbox).toBe(1);
    open.release();
    await settle();
    expect(log.at(-1)).toBe('p got next');
  });
});

describe('control mail', () => {
  test('is drained in batches of 64, then a waiting message runs', async () => {
    const system = createSystem({ turnMs: 60_000, onFailure: () => {} });
    let starts = 0;
    const child = defineActor<string>(() => {
      starts++;
      return { receive: () => fail('x') };
    });
    const seen: number[] = [];
    const parent = system.spawn(
      defineActor<string>((ctx) => ({
        receive(message) {
          if (message === 'look') seen.push(starts - 200);
          else for (let i = 0; i < 200; i++) ctx.spawn(child, { restart: 'permanent' }).tell('fail');
          // Behind the children in the ready queue, so all their ends are control mail by the next turn.
          if (message !== 'look') for (let i = 0; i < 4; i++) ctx.self.tell('look');
        },
      })),
    );
    parent.tell('go');
    await new Promise((resolve) => setImmediate(resolve));
    expect(seen).toEqual([64, 128, 192, 200]);
    await system.stop();
  });

  test('that never ends starves neither messages nor work', async () => {
    const { system, settle, log } = world();
    let requests = 0;
    let slices = 0;
    const leaf = probe(log, 'leaf');
    // A parent whose child ends and is spawned anew in every message has control mail in every turn.
    const parent = system.spawn(
      defineActor<string>((ctx) => {
        ctx.ready();
        return {
          receive() {
            if (++requests < 300) {
              for (let i = 0; i < 3; i++) ctx.spawn(leaf).tell((child) => child.exit());
              ctx.self.tell('again');
            }
          },
          work: () => ++slices < 100,
        };
      }),
    );
    parent.tell('go');
    await settle();
    expect([requests, slices]).toEqual([300, 100]);
  });
});

describe('after', () => {
  test('delivers into the message lane at its time', async () => {
    const { system, clock, advance, log } = world();
    system.spawn(
      defineActor<string>((ctx) => {
        ctx.after(20, 'second');
        ctx.after(10, 'first');
        ctx.after(20, 'third');
        return { receive: (message) => void log.push([message, clock.now()]) };
      }),
    );
    await advance(100);
    expect(log).toEqual([
      ['first', 10],
      ['second', 20],
      ['third', 20],
    ]);
  });

  test('cancel undoes it, also when it is already queued', async () => {
    const { system, settle, advance, log } = world();
    const open = gate();
    let cancels: (() => void)[] = [];
    const ref = system.spawn(probe(log, 'a'));
    ref.tell((ctx) => {
      cancels = [ctx.after(10, 'queued'), ctx.after(50, 'later')];
    });
    ref.tell(open.wait);
    await advance(20);
    expect(system.status(ref.path)?.mailbox).toBe(1);
    for (const cancel of cancels) cancel();
    expect(system.status(ref.path)?.mailbox).toBe(0);
    open.release();
    await advance(100);
    await settle();
    expect(log).toEqual(['a starts']);
  });

  test('after(0) is due at the current instant, behind mail queued before', async () => {
    const { system, settle, clock, log } = world();
    const ref = system.spawn(probe(log, 'a'));
    ref.tell((ctx) => void ctx.after(0, 'zero'));
    ref.tell('before');
    await settle();
    expect(log).toEqual(['a starts', 'a got before', 'a got zero']);
    expect(clock.now()).toBe(0);
  });

  test('none fires after the end, and none of a dead actor is a dead letter', async () => {
    const { system, advance, log } = world();
    const ref = system.spawn(probe(log, 'a', { start: (ctx) => void ctx.after(10, 'timer') }));
    ref.tell((ctx) => ctx.exit());
    await advance(100);
    expect(log).toEqual(['a starts', 'a stops: normal']);
    expect(system.deadLetters().count).toBe(0);
  });

  test.each([-1, Number.NaN, '5'])('refuses %s', async (ms) => {
    const { system, settle, log } = world();
    system.spawn(watching(log, 'w', system.spawn(probe(log, 'a', { start: (ctx) => void ctx.after(ms as number, 'x') }))));
    await settle();
    expect(log).toContain('w told of /$1: ERR_OPTIONS_INVALID');
  });
});

describe('watching', () => {
  test('gives the notice behind everything the dead told before', async () => {
    for (let seed = 0; seed < 20; seed++) {
      const { system, settle, log } = world(seed);
      const watched = system.spawn(probe(log, 'a'));
      const watcher = system.spawn(watching(log, 'w', watched));
      watched.tell((ctx) => {
        for (const message of ['1', '2', '3']) watcher.tell(message);
        ctx.exit();
      });
      await settle();
      expect(log.filter((line) => String(line).startsWith('w '))).toEqual(['w starts', 'w got 1', 'w got 2', 'w got 3', 'w told of /$1: normal']);
    }
  });

  test('gives it once, also when the watched one is dead already, with the reason it ended with', async () => {
    const { system, settle, log } = world();
    const watched = system.spawn(probe(log, 'a'));
    watched.tell((ctx) => ctx.exit({ shutdown: 4 }));
    await settle();
    const watcher = system.spawn(watching(log, 'w', watched, watched));
    await settle();
    expect(log.slice(2)).toEqual(['w starts', 'w told of /$1: {"shutdown":4}']);
    watcher.tell((ctx) => ctx.watch(watched));
    await settle();
    expect(log).toHaveLength(5);
  });

  test('of a ref that is no actor of this runtime gives ERR_ACTOR_UNKNOWN', async () => {
    const { system, settle, log } = world();
    const foreign: ActorRef<never> = { path: '/elsewhere', tell() {}, ask: () => Promise.reject(new Error('no')) };
    system.spawn(watching(log, 'w', foreign));
    await settle();
    expect(log).toEqual(['w starts', 'w told of /elsewhere: ERR_ACTOR_UNKNOWN']);
  });

  test('is undone by one unwatch, which also removes a notice that waits', async () => {
    const { system, settle, log } = world();
    const open = gate();
    const watched = system.spawn(probe(log, 'a'));
    let context: ActorContext<Do> | undefined;
    const watcher = system.spawn(
      probe(log, 'w', {
        start: (ctx) => {
          context = ctx;
        },
      }),
    );
    watcher.tell((ctx) => {
      ctx.watch(watched);
      ctx.watch(watched);
      return open.wait();
    });
    await settle();
    watched.tell((ctx) => ctx.exit());
    await settle();
    expect(system.status(watcher.path)?.mailbox).toBe(1);
    context?.unwatch(watched);
    expect(system.status(watcher.path)?.mailbox).toBe(0);
    open.release();
    await settle();
    expect(log).toEqual(['a starts', 'w starts', 'a stops: normal']);
  });

  test('without onSignal.terminated changes nothing: no death pact', async () => {
    const { system, settle, log } = world();
    const watched = system.spawn(probe(log, 'a'));
    const watcher = system.spawn(
      defineActor<string>((ctx) => {
        ctx.watch(watched);
        return { receive: (message) => void log.push(message) };
      }),
    );
    watched.tell(() => fail('x'));
    await settle();
    watcher.tell('alive');
    await settle();
    expect(log.at(-1)).toBe('alive');
  });

  test('an error in onSignal ends the watcher like one of receive', async () => {
    const { system, settle, log } = world();
    const watched = system.spawn(probe(log, 'a'));
    const watcher = system.spawn(
      defineActor<string>((ctx) => {
        ctx.watch(watched);
        return { receive() {}, onSignal: { terminated: () => fail('cannot go on') } };
      }),
    );
    system.spawn(watching(log, 'w', watcher));
    watched.tell((ctx) => ctx.exit());
    await settle();
    expect(log).toContain('w told of /$2: cannot go on');
  });

  test('a notice is no dead letter', async () => {
    const { system, settle, log } = world();
    const watched = system.spawn(probe(log, 'a'));
    const watcher = system.spawn(watching(log, 'w', watched));
    watcher.tell((ctx) => {
      watched.tell((dead) => dead.exit());
      return new Promise(() => ctx.clock.setTimeout(() => ctx.exit(), 10));
    });
    await settle();
    expect(system.status(watcher.path)?.mailbox).toBe(1);
    const stopped = system.stop();
    await settle();
    await stopped;
    expect(system.deadLetters().count).toBe(0);
  });
});

describe('work', () => {
  test('runs when the actor was marked ready, after a message that waits, and again while it says there is more', async () => {
    const { system, settle, log } = world();
    let left = 3;
    const ref = system.spawn(
      probe(log, 'a', {
        start: (ctx) => {
          ctx.ready();
          ctx.ready();
        },
        work: () => {
          log.push('works');
          return --left > 0;
        },
      }),
    );
    ref.tell('1');
    await settle();
    expect(log).toEqual(['a starts', 'a got 1', 'works', 'works', 'works']);
  });

  test('does not lose a ready() that comes while it runs', async () => {
    const { system, settle } = world();
    let slices = 0;
    system.spawn(
      defineActor<string>((ctx) => {
        ctx.ready();
        return {
          receive() {},
          work() {
            if (++slices < 5) ctx.ready();
            return false;
          },
        };
      }),
    );
    await settle();
    expect(slices).toBe(5);
  });

  test('waits while the actor is suspended or a promise is pending, and is over with it', async () => {
    const { system, settle, log } = world();
    const open = gate();
    let context: ActorContext<Do> | undefined;
    const ref = system.spawn(
      probe(log, 'a', {
        start: (ctx) => {
          context = ctx;
        },
        work: () => {
          log.push('works');
          return false;
        },
      }),
    );
    ref.tell(open.wait);
    await settle();
    context?.ready();
    await settle();
    expect(log).toEqual(['a starts']);
    system.suspend(ref.path);
    open.release();
    await settle();
    expect(log).toEqual(['a starts']);
    system.resume(ref.path);
    await settle();
    expect(log).toEqual(['a starts', 'works']);
    ref.tell((ctx) => ctx.exit());
    await settle();
    context?.ready();
    await settle();
    expect(log).toEqual(['a starts', 'works', 'a stops: normal']);
  });

  test('that throws ends the actor like an error of receive', async () => {
    const { system, settle, log } = world();
    system.spawn(probe(log, 'a', { start: (ctx) => ctx.ready(), work: () => fail('bad work') }));
    await settle();
    expect(log).toEqual(['a starts', 'a stops: bad work']);
  });

  test('has a deadline of at most two milliseconds from its start', async () => {
    const system = createSystem();
    const slices: number[] = [];
    await new Promise<void>((resolve) => {
      system.spawn(
        defineActor<string>((ctx) => {
          ctx.ready();
          return {
            receive() {},
            work(deadline) {
              slices.push(deadline - performance.now());
              if (slices.length < 20) return true;
              resolve();
              return false;
            },
          };
        }),
      );
    });
    expect(Math.max(...slices)).toBeLessThanOrEqual(2);
    await system.stop();
  });
});
