import { describe, expect, test } from 'vitest';
import { type ActorRef, type Clock, createSystem, type DeadLetter, defineActor, supervisor, type TraceEvent, terminateChild } from '../../actors/index.ts';
import { testSystem } from '../../actors/testing.ts';
import { type Do, dies, fail, probe } from './probe.ts';

type Question = { replyTo: ActorRef<string>; after?: number };

const answering = defineActor<Question | { late: ActorRef<string> }>((ctx) => ({
  receive(message) {
    if ('late' in message) message.late.tell('late');
    else if (message.after === undefined) message.replyTo.tell('answer');
    else ctx.after(message.after, { late: message.replyTo });
  },
}));

function world(options: Parameters<typeof testSystem>[0] = {}) {
  const log: unknown[] = [];
  return { ...testSystem({ seed: 9, onFailure: () => {}, ...options }), log };
}

/** What a promise came to, once it has. */
function outcome(promise: Promise<unknown>): { value?: unknown; code?: unknown } {
  const result: { value?: unknown; code?: unknown } = {};
  promise.then(
    (value) => {
      result.value = value;
    },
    (error: { code?: unknown }) => {
      result.code = error.code;
    },
  );
  return result;
}

describe('ask', () => {
  test('resolves with the answer', async () => {
    const { system, settle } = world();
    const asked = outcome(system.spawn(answering).ask<string>((replyTo) => ({ replyTo })));
    await settle();
    expect(asked).toEqual({ value: 'answer' });
  });

  test.each([
    [undefined, 5000],
    [{ timeout: 70 }, 70],
  ])('with options %j rejects after %i ms, and a later answer is a dead letter', async (options, timeout) => {
    const { system, advance } = world();
    const asked = outcome(system.spawn(answering).ask<string>((replyTo) => ({ replyTo, after: 6000 }), options));
    await advance(timeout - 1);
    expect(asked).toEqual({});
    await advance(1);
    expect(asked).toEqual({ code: 'ERR_ASK_TIMEOUT' });
    await advance(6000);
    expect(system.deadLetters().byReason).toEqual({ 'ask-over': 1 });
    expect(system.deadLetters().last[0]).toMatchObject({ message: 'late', reason: 'ask-over' });
  });

  test('of a dead actor rejects at once and is a dead letter', async () => {
    const { system, settle } = world();
    const ref = system.spawn(probe([], 'a'));
    ref.tell((ctx) => ctx.exit());
    await settle();
    await expect(ref.ask(() => 'anyone?')).rejects.toMatchObject({ code: 'ERR_ACTOR_STOPPED' });
    expect(system.deadLetters()).toMatchObject({ count: 1, last: [{ message: 'anyone?', reason: 'stopped', to: { path: '/$1' } }] });
  });

  test('of one that dies before answering rejects at its timeout', async () => {
    const { system, settle, advance } = world();
    const ref = system.spawn(probe([], 'a'));
    const asked = outcome(ref.ask(() => dies('x')));
    await settle();
    expect(asked).toEqual({});
    await advance(5000);
    expect(asked).toEqual({ code: 'ERR_ASK_TIMEOUT' });
  });

  test('is rejected at system.stop() while it is open', async () => {
    const { system, settle } = world();
    const asked = outcome(system.spawn(answering).ask<string>((replyTo) => ({ replyTo, after: 100 })));
    await settle();
    const stopped = system.stop();
    await settle();
    await stopped;
    expect(asked).toEqual({ code: 'ERR_SYSTEM_STOPPED' });
  });

  test('a second answer is a dead letter', async () => {
    const { system, settle } = world();
    const twice = defineActor<Question>(() => ({
      receive({ replyTo }) {
        replyTo.tell('one');
        replyTo.tell('two');
      },
    }));
    const asked = outcome(system.spawn(twice).ask<string>((replyTo) => ({ replyTo })));
    await settle();
    expect(asked).toEqual({ value: 'one' });
    expect(system.deadLetters().last.map((letter) => letter.message)).toEqual(['two']);
  });
});

describe('dead letters', () => {
  test('are told after counting; an error in the listener is logged', async () => {
    const counts: number[] = [];
    const logged: unknown[] = [];
    const letters: DeadLetter[] = [];
    const logger = { debug() {}, info() {}, warn() {}, error: (...args: unknown[]) => void logged.push(args[0]) };
    const t = world({
      logger,
      onDeadLetter: (letter) => {
        counts.push(t.system.deadLetters().count);
        letters.push(letter);
        fail('bad listener');
      },
    });
    const ref = t.system.spawn(probe([], 'a'), { name: 'a' });
    ref.tell((ctx) => ctx.exit());
    await t.settle();
    ref.tell('x');
    ref.tell('y');
    expect(counts).toEqual([1, 2]);
    expect(letters.map(({ message, to, reason }) => [message, to === ref, reason])).toEqual([
      ['x', true, 'stopped'],
      ['y', true, 'stopped'],
    ]);
    expect(logged).toEqual(['onDeadLetter threw', 'onDeadLetter threw']);
  });

  test('all are counted, the newest 100 kept', async () => {
    const { system, settle } = world();
    const ref = system.spawn(probe([], 'a'));
    ref.tell((ctx) => ctx.exit());
    await settle();
    for (let i = 0; i < 1234; i++) ref.tell(String(i));
    const { count, last } = system.deadLetters();
    expect([count, last.length, last[0]?.message, last[99]?.message]).toEqual([1234, 100, '1134', '1233']);
  });
});

describe('tree', () => {
  test('is plain data: children in start order, without those that ended, terminated specs as stopped', async () => {
    const { system, settle } = world({ name: 'demo' });
    const a = probe([], 'a');
    const top = system.spawn(
      supervisor({
        strategy: 'one-for-one',
        children: [
          { id: 'one', start: a },
          { id: 'two', start: a },
        ],
      }),
      { name: 'top' },
    );
    const gone = system.spawn(a, { name: 'gone' });
    const waits = system.spawn(a, { name: 'waits' });
    void terminateChild(top, 'one');
    gone.tell((ctx) => ctx.exit());
    await settle();
    waits.tell('1');
    waits.tell('2');
    const leaf = { kind: 'actor', restarts: 0, mailbox: 0, children: [] };
    const expected = {
      name: 'demo',
      path: '/',
      kind: 'system',
      state: 'running',
      restarts: 0,
      mailbox: 0,
      children: [
        {
          name: 'top',
          path: '/top',
          kind: 'supervisor',
          state: 'running',
          restarts: 0,
          mailbox: 0,
          children: [
            { ...leaf, name: 'one', path: '/top/one', state: 'stopped' },
            { ...leaf, name: 'two', path: '/top/two', state: 'running' },
          ],
        },
        { ...leaf, name: 'waits', path: '/waits', state: 'running', mailbox: 2 },
      ],
    };
    expect(system.tree()).toEqual(expected);
    expect(JSON.parse(JSON.stringify(system.tree()))).toEqual(expected);
    expect(system.status('/top/one')?.state).toBe('stopped');
    expect(system.status('/nobody')).toBeUndefined();
  });

  test('takes in what an actor says of itself, and serialises whatever that is', () => {
    const { system } = world();
    const context: Record<string, unknown> = { big: 1n };
    context.self = context;
    const inspect = () => ({ metrics: { recordsIn: 3, watermark: null }, restarts: 4, state: 'restarting' as const, snapshot: context });
    system.spawn(probe([], 'a', { inspect }), { name: 'a' });
    const node = JSON.parse(JSON.stringify(system.tree())).children[0];
    expect(node).toMatchObject({ metrics: { recordsIn: 3, watermark: null }, restarts: 4, state: 'restarting', snapshot: { big: '1' } });
  });

  test('an actor may appear as a supervisor', () => {
    const { system } = world();
    system.spawn(
      defineActor<string>(() => ({ receive() {} }), { kind: 'supervisor' }),
      { name: 'job' },
    );
    expect(system.status('/job')?.kind).toBe('supervisor');
  });
});

describe('system messages', () => {
  test('suspend holds messages, resume lets them go on; control mail is served all the same', async () => {
    const { system, settle, log } = world();
    const ref = system.spawn(probe(log, 'a'));
    system.suspend(ref.path);
    ref.tell('held');
    await settle();
    expect(system.status(ref.path)?.mailbox).toBe(1);
    expect(log).toEqual(['a starts']);
    system.resume(ref.path);
    await settle();
    expect(log).toEqual(['a starts', 'a got held']);
    system.suspend(ref.path);
    const stopped = system.stop();
    await settle();
    await stopped;
    expect(log.at(-1)).toBe('a stops: shutdown');
  });

  test('trace tells messages, notices and moves, until it is taken away', async () => {
    const { system, settle } = world();
    const events: TraceEvent[] = [];
    const ref = system.spawn(probe([], 'a'));
    system.trace(ref.path, (event) => void events.push(event));
    ref.tell('x');
    await settle();
    system.trace(ref.path, undefined);
    ref.tell('y');
    await settle();
    expect(events).toEqual([{ type: 'message', path: '/$1', message: 'x' }]);
    system.trace(ref.path, (event) => void events.push(event));
    ref.tell((ctx) => ctx.exit());
    await settle();
    expect(events.slice(2).map((event) => (event.type === 'state' ? event.state : event.type))).toEqual(['stopping', 'stopped']);
  });

  test.each(['suspend', 'resume', 'trace'] as const)('%s of a path without an actor throws', (message) => {
    const { system } = world();
    expect(() => system[message]('/nobody', undefined as never)).toThrow(expect.objectContaining({ code: 'ERR_ACTOR_UNKNOWN' }));
  });
});

describe('refs and contexts', () => {
  test('an actor knows itself, its parent and its children in start order', async () => {
    const { system, settle, log } = world();
    const parent = system.spawn(probe(log, 'p', { start: (ctx) => void log.push(ctx.parent) }), { name: 'p' });
    parent.tell((ctx) => {
      for (const name of ['x', 'y']) ctx.spawn(probe(log, name, { start: (child) => void log.push(child.parent?.path, child.self.path) }), { name });
      log.push(ctx.children.map((child) => child.path));
    });
    await settle();
    expect(log).toEqual(['p starts', undefined, 'x starts', '/p', '/p/x', 'y starts', '/p', '/p/y', ['/p/x', '/p/y']]);
  });

  test("an actor's log names it where the logger can", () => {
    const lines: unknown[] = [];
    const plain = { debug() {}, info() {}, warn() {}, error() {} };
    const logger = { ...plain, child: (fields: { actor: string }) => ({ ...plain, info: (...args: unknown[]) => void lines.push([fields.actor, ...args]) }) };
    world({ logger }).system.spawn(probe([], 'a', { start: (ctx) => ctx.log.info('hello', 1) }), { name: 'a' });
    expect(lines).toEqual([['/a', 'hello', 1]]);
  });
});

describe('testSystem', () => {
  test('runs no mail outside settle and advance', async () => {
    const { system, settle, log } = world();
    system.spawn(probe(log, 'a')).tell('x');
    for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve));
    expect(log).toEqual(['a starts']);
    await settle();
    expect(log).toEqual(['a starts', 'a got x']);
  });

  test('settle leaves no promise job, moves no time, and does not wait for what only the outside can settle', async () => {
    const { system, clock, settle, log } = world();
    const ref = system.spawn(probe(log, 'a'));
    ref.tell(async () => {
      for (let i = 0; i < 300; i++) await Promise.resolve();
    });
    ref.tell('after the jobs');
    ref.tell(() => new Promise(() => {}));
    ref.tell('never');
    await settle();
    expect(log).toEqual(['a starts', 'a got after the jobs']);
    expect(clock.now()).toBe(0);
  });

  test('settle lets an actor that polls for a promise see it settled', async () => {
    const { system, settle } = world();
    let seen = false;
    let polls = 0;
    const ref: ActorRef<Do> = system.spawn(probe([], 'a'));
    const poll: Do = (ctx) => {
      polls++;
      if (!seen) ctx.self.tell(poll);
    };
    ref.tell(() => {
      void Promise.resolve().then(() => {
        seen = true;
      });
    });
    ref.tell(poll);
    await settle();
    expect(polls).toBeGreaterThan(0);
  });

  test('advance goes from instant to instant, fires the timers of one in the order they were set, settles in between, and ends at its time', async () => {
    const { system, clock, advance, log } = world();
    clock.setTimeout(() => log.push(`b ${clock.now()}`), 20);
    clock.setTimeout(() => log.push(`a ${clock.now()}`), 10);
    clock.setTimeout(() => {
      log.push(`c ${clock.now()}`);
      clock.setTimeout(() => log.push(`d ${clock.now()}`), 0);
      ref.tell('between');
    }, 20);
    clock.setTimeout(() => log.push(`e ${clock.now()}`), 20);
    clock.setTimeout(() => log.push('too late'), 101);
    clock.clearTimeout(clock.setTimeout(() => log.push('cleared'), 20));
    const ref = system.spawn(probe(log, 'x'));
    await advance(100);
    expect(log).toEqual(['x starts', 'a 10', 'b 20', 'c 20', 'e 20', 'x got between', 'd 20']);
    expect(clock.now()).toBe(100);
  });

  test('the same seed gives the same trace, other seeds give others, and two systems do not influence each other', async () => {
    const run = async (seed: number, beside?: () => Promise<void>) => {
      const log: string[] = [];
      const t = testSystem({ seed });
      const refs: ActorRef<number>[] = [];
      for (const name of ['a', 'b', 'c', 'd']) {
        refs.push(
          t.system.spawn(
            defineActor<number>((ctx) => ({
              receive(n) {
                log.push(`${name}${n}`);
                if (n === 0) return;
                for (const ref of refs) if (ref !== ctx.self) ref.tell(n - 1);
                ctx.after(n * 3, 0);
              },
            })),
          ),
        );
      }
      refs[0]?.tell(3);
      await beside?.();
      await t.settle();
      await t.advance(4);
      return log.join(' ');
    };
    const one = await run(1);
    expect(await run(1)).toBe(one);
    expect(await run(1, async () => void (await run(2)))).toBe(one);
    expect(new Set(await Promise.all([1, 2, 3, 4, 5].map((seed) => run(seed)))).size).toBe(5);
  });

  test('the seed feeds random: backoff waits repeat', async () => {
    const waits = async (seed: number) => {
      const t = testSystem({ seed, onFailure: () => {} });
      const starts: number[] = [];
      const a = defineActor<string>((ctx) => {
        starts.push(t.clock.now());
        ctx.self.tell('go');
        return { receive: () => fail('x') };
      });
      t.system.spawn(
        supervisor({ strategy: 'one-for-one', intensity: { max: 9, within: 1 }, backoff: { initial: 100, max: 1000 }, children: [{ id: 'a', start: a }] }),
      );
      await t.advance(3000);
      return starts;
    };
    expect(await waits(5)).toEqual(await waits(5));
    expect(await waits(5)).not.toEqual(await waits(6));
  });

  test.each([-1, Number.NaN, Number.POSITIVE_INFINITY])('advance(%s) is refused', async (ms) => {
    await expect(world().advance(ms)).rejects.toMatchObject({ code: 'ERR_OPTIONS_INVALID' });
  });
});

describe('the default clock', () => {
  test('is the one given, else tells epoch milliseconds', () => {
    const mine: Clock = { now: () => 42, setTimeout: () => undefined, clearTimeout: () => {} };
    const seen: number[] = [];
    const look = defineActor<never>((ctx) => {
      seen.push(ctx.clock.now());
      return { receive() {} };
    });
    createSystem({ clock: mine }).spawn(look);
    const before = Date.now();
    createSystem().spawn(look);
    expect(seen[0]).toBe(42);
    expect(seen[1]).toBeGreaterThanOrEqual(before);
  });
});
