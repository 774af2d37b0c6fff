import { describe, expect, test } from 'vitest';
import { type ActorContext, type ActorRef, defineActor } from '../../actors/index.ts';
import { testSystem } from '../../actors/testing.ts';
import { type Do, dies, fail, probe, text, watching } from './probe.ts';

const never = () => new Promise<void>(() => {});

function world(options: Parameters<typeof testSystem>[0] = {}) {
  const log: unknown[] = [];
  const failures: string[] = [];
  const logged: string[] = [];
  const logger = {
    debug() {},
    info() {},
    warn() {},
    error: (what: unknown, error: unknown) => void logged.push(`${String(what)}: ${(error as Error).message}`),
  };
  const t = testSystem({
    seed: 7,
    logger,
    onFailure: (ref, error, phase) => void failures.push(`${ref.path} ${phase} ${(error as Error).message}`),
    ...options,
  });
  return { ...t, log, failures, logged };
}

describe('stopping', () => {
  test.each<[string, Do, string]>([
    ['its own exit', (ctx) => ctx.exit(), 'normal'],
    ['its own exit with a reason', (ctx) => ctx.exit({ shutdown: 7 }), '{"shutdown":7}'],
    ['an error', dies('boom'), 'boom'],
    ['a rejected receive', async () => fail('later'), 'later'],
  ])('runs once after %s', async (_, message, reason) => {
    const { system, settle, log } = world();
    system.spawn(probe(log, 'a')).tell(message);
    await settle();
    expect(log).toEqual(['a starts', `a stops: ${reason}`]);
  });

  test('runs before a restart, and not when the start failed', async () => {
    const { system, settle, log } = world();
    let starts = 0;
    const ref = system.spawn(probe(log, 'a', { start: () => void (++starts === 2 && fail('bad start')) }), { restart: 'permanent' });
    ref.tell(dies('boom'));
    await settle();
    expect(log).toEqual(['a starts', 'a stops: boom', 'a starts']);
  });

  test('that throws or rejects is logged and told, and changes neither the reason nor the order', async () => {
    for (const stopping of [() => fail('bad stop'), async () => fail('bad stop')]) {
      const { system, settle, log, failures, logged } = world();
      const parent = system.spawn(probe(log, 'p'));
      parent.tell((ctx) => void ctx.spawn(probe(log, 'c', { stopping }), { name: 'c' }));
      await settle();
      system.spawn(watching(log, 'w', parent));
      parent.tell((ctx) => ctx.exit({ shutdown: 'enough' }));
      await settle();
      expect(log.slice(3)).toEqual(['c stops: shutdown', 'p stops: {"shutdown":"enough"}', 'w told of /$1: {"shutdown":"enough"}']);
      expect(failures).toEqual(['/$1/c stopping bad stop']);
      expect(logged).toEqual(['actor /$1/c failed while stopping: bad stop']);
    }
  });

  test('may return a promise, and the actor has ended when that settles', async () => {
    const { system, settle, log } = world();
    let release = () => {};
    const ref = system.spawn(
      probe(log, 'a', {
        stopping: () =>
          new Promise((resolve) => {
            release = resolve;
          }),
      }),
    );
    system.spawn(watching(log, 'w', ref));
    ref.tell((ctx) => ctx.exit());
    await settle();
    expect(system.status(ref.path)?.state).toBe('stopping');
    expect(log).not.toContain('w told of /$1: normal');
    release();
    await settle();
    expect(log).toContain('w told of /$1: normal');
    expect(system.status(ref.path)).toBeUndefined();
  });
});

describe('children first', () => {
  test('an actor stops its children last started first, one at a time, then runs its own stopping', async () => {
    const { system, settle, advance, log } = world();
    const slow = (ctx: ActorContext<Do>) => new Promise<void>((resolve) => void ctx.clock.setTimeout(resolve, 100));
    const parent = system.spawn(probe(log, 'p'));
    parent.tell((ctx) => {
      for (const name of ['one', 'two', 'three']) {
        let own: ActorContext<Do>;
        ctx.spawn(
          probe(log, name, {
            start: (child) => {
              own = child;
            },
            stopping: () => slow(own),
          }),
          { name },
        );
      }
    });
    await settle();
    log.length = 0;
    parent.tell((ctx) => ctx.exit());
    await settle();
    expect(log).toEqual(['three stops: shutdown']);
    await advance(100);
    expect(log).toEqual(['three stops: shutdown', 'two stops: shutdown']);
    await advance(200);
    expect(log).toEqual(['three stops: shutdown', 'two stops: shutdown', 'one stops: shutdown', 'p stops: normal']);
  });

  test('the shutdown time bounds the whole end, and then the actor and everything under it is killed', async () => {
    const { system, settle, advance, log, failures } = world();
    const refs: ActorRef<never>[] = [];
    const parent = system.spawn(probe(log, 'p'), { name: 'p', shutdown: 300 });
    refs.push(parent);
    parent.tell((ctx) => {
      refs.push(ctx.spawn(probe(log, 'first'), { name: 'first' }));
      refs.push(ctx.spawn(probe(log, 'hangs', { stopping: never }), { name: 'hangs', shutdown: 'infinity' }));
    });
    await settle();
    system.spawn(watching(log, 'w', ...refs), { name: 'w' });
    log.length = 0;
    parent.tell((ctx) => ctx.exit());
    await advance(299);
    expect(log).toEqual(['hangs stops: shutdown']);
    await advance(1);
    expect(log.slice(1).sort()).toEqual(
      ['w told of /p/first: ERR_ACTOR_KILLED', 'w told of /p/hangs: ERR_ACTOR_KILLED', 'w told of /p: ERR_ACTOR_KILLED'].sort(),
    );
    expect(failures).toHaveLength(3);
  });

  test('a brutal child is killed without being asked', async () => {
    const { system, settle, log } = world();
    const parent = system.spawn(probe(log, 'p'));
    let child: ActorRef<Do> | undefined;
    parent.tell((ctx) => {
      child = ctx.spawn(probe(log, 'c'), { name: 'c', shutdown: 'brutal' });
    });
    await settle();
    system.spawn(watching(log, 'w', child as ActorRef<Do>));
    parent.tell((ctx) => ctx.stop(child as ActorRef<Do>));
    await settle();
    expect(log).toEqual(['p starts', 'c starts', 'w starts', 'w told of /$1/c: ERR_ACTOR_KILLED']);
  });
});

describe('a stop', () => {
  test('takes effect while a receive promise is pending, whose result and rejection are ignored', async () => {
    for (const settlement of ['resolve', 'reject'] as const) {
      const { system, settle, log, failures, logged } = world();
      let end = { resolve: () => {}, reject: (_: Error) => {} };
      const parent = system.spawn(probe(log, 'p'));
      let child: ActorRef<Do> | undefined;
      parent.tell((ctx) => {
        child = ctx.spawn(probe(log, 'c'));
      });
      await settle();
      child?.tell(
        () =>
          new Promise<void>((resolve, reject) => {
            end = { resolve, reject };
          }),
      );
      child?.tell('waits');
      await settle();
      parent.tell((ctx) => ctx.stop(child as ActorRef<Do>));
      await settle();
      expect(log.slice(2)).toEqual(['c stops: shutdown']);
      expect(system.deadLetters().last.map((letter) => [letter.message, letter.reason])).toEqual([['waits', 'stopped']]);
      if (settlement === 'resolve') end.resolve();
      else end.reject(new Error('late'));
      await settle();
      expect([failures, logged]).toEqual([[], []]);
    }
  });

  test('overtakes messages that wait; they become dead letters', async () => {
    const { system, settle, log } = world();
    const ref = system.spawn(probe(log, 'a'));
    for (const message of ['1', '2', '3']) ref.tell(message);
    const stopped = system.stop();
    await settle();
    await stopped;
    expect(log).toEqual(['a starts', 'a stops: shutdown']);
    expect(system.deadLetters().byReason).toEqual({ stopped: 3 });
  });

  test('by ctx.stop is for good whatever the restart type, and only for children', async () => {
    const { system, settle, log } = world();
    const parent = system.spawn(probe(log, 'p'));
    const stranger = system.spawn(probe(log, 's'));
    let child: ActorRef<Do> | undefined;
    parent.tell((ctx) => {
      child = ctx.spawn(probe(log, 'c'), { restart: 'permanent' });
    });
    await settle();
    parent.tell((ctx) => ctx.stop(child as ActorRef<Do>));
    await settle();
    expect(log.filter((line) => line === 'c starts')).toHaveLength(1);
    const codes: unknown[] = [];
    for (const ref of [stranger, parent]) {
      parent.tell((ctx) => {
        try {
          ctx.stop(ref);
        } catch (error) {
          codes.push((error as { code: string }).code);
        }
      });
    }
    await settle();
    expect(codes).toEqual(['ERR_NOT_A_CHILD', 'ERR_NOT_A_CHILD']);
  });
});

describe('ctx.exit', () => {
  test('returns; the handler goes on to its end, the first reason wins, a later throw is logged', async () => {
    const { system, settle, log, failures, logged } = world();
    const ref = system.spawn(probe(log, 'a'), { name: 'a' });
    ref.tell((ctx) => {
      ctx.exit({ shutdown: 'first' });
      ctx.exit(new Error('second'));
      log.push('goes on');
      fail('later throw');
    });
    ref.tell('never received');
    await settle();
    expect(log).toEqual(['a starts', 'goes on', 'a stops: {"shutdown":"first"}']);
    expect(failures).toEqual([]);
    expect(logged).toEqual(['/a threw after its exit: later throw']);
  });

  test('takes effect at once in a pending receive; its later rejection is logged', async () => {
    const { system, settle, log, logged } = world();
    let reject = (_: Error) => {};
    let context: ActorContext<Do> | undefined;
    const ref = system.spawn(
      probe(log, 'a', {
        start: (ctx) => {
          context = ctx;
        },
      }),
      { name: 'a' },
    );
    ref.tell(
      () =>
        new Promise<void>((_, no) => {
          reject = no;
        }),
    );
    await settle();
    context?.exit();
    await settle();
    expect(log).toEqual(['a starts', 'a stops: normal']);
    reject(new Error('late'));
    await settle();
    expect(logged).toEqual(['/a threw after its exit: late']);
  });

  test('with an Error is told as a failure', async () => {
    const { system, settle, log, failures } = world();
    system.spawn(probe(log, 'a'), { name: 'a' }).tell((ctx) => ctx.exit(new Error('enough')));
    await settle();
    expect(failures).toEqual(['/a receive enough']);
  });
});

describe('failures', () => {
  test('go to onFailure and to the log', async () => {
    const { system, settle, log, failures, logged } = world();
    system.spawn(probe(log, 'a'), { name: 'a' }).tell(dies('boom'));
    system.spawn(probe(log, 'b', { start: () => fail('no start') }), { name: 'b' });
    await settle();
    expect(failures.sort()).toEqual(['/a receive boom', '/b start no start']);
    expect(logged).toHaveLength(2);
  });

  test('with neither become process warnings', async () => {
    const warnings: string[] = [];
    const listen = (warning: Error) => void warnings.push(warning.message);
    process.on('warning', listen);
    const { system, settle } = testSystem({ seed: 1 });
    system.spawn(probe([], 'a'), { name: 'a' }).tell(dies('nobody listens'));
    await settle();
    await new Promise((resolve) => setImmediate(resolve));
    process.off('warning', listen);
    expect(warnings.filter((line) => line.includes('actor /a failed') && line.includes('nobody listens'))).toHaveLength(1);
  });

  test('what is thrown and no Error becomes one that carries it', async () => {
    const { system, settle, log } = world();
    const ref = system.spawn(
      defineActor<string>(() => ({
        receive() {
          throw 'a string';
        },
        stopping: (reason) => void log.push(text(reason), (reason as Error).cause),
      })),
    );
    ref.tell('go');
    await settle();
    expect(log).toEqual(['ERR_ACTOR_FAILED', 'a string']);
  });

  test('a listener that throws is logged', async () => {
    const { system, settle, logged } = world({ onFailure: () => fail('bad listener') });
    system.spawn(probe([], 'a')).tell(dies('boom'));
    await settle();
    expect(logged).toContain('onFailure threw for /$1: bad listener');
  });
});
