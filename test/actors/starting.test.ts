import { describe, expect, test } from 'vitest';
import { type ActorRef, type Behaviour, childOf, createSystem, defineActor, supervisor, terminateChild } from '../../actors/index.ts';
import { testSystem } from '../../actors/testing.ts';
import { type Do, dies, fail, probe, watching } from './probe.ts';

function world() {
  const log: unknown[] = [];
  return { ...testSystem({ seed: 3, onFailure: () => {} }), log };
}

describe('a definition', () => {
  test('runs inside spawn, and a nested supervisor has started its children by then', () => {
    const { system, log } = world();
    const inner = supervisor({ strategy: 'one-for-one', children: [{ id: 'leaf', start: probe(log, 'leaf') }] });
    system.spawn(supervisor({ strategy: 'one-for-one', children: [{ id: 'inner', start: inner }] }), { name: 'top' });
    expect(log).toEqual(['leaf starts']);
    expect(system.status('/top/inner/leaf')?.state).toBe('running');
  });

  test('that returns a promise fails to start', async () => {
    const { system, settle, log } = world();
    const asynchronous = defineActor<Do>((async () => ({ receive() {} })) as never);
    const ref = system.spawn(asynchronous);
    system.spawn(watching(log, 'w', ref));
    await settle();
    expect(log).toEqual(['w starts', 'w told of /$1: ERR_DEFINITION_ASYNC']);
  });

  test('without receive fails to start', async () => {
    const { system, settle, log } = world();
    system.spawn(watching(log, 'w', system.spawn(defineActor<Do>((() => ({})) as never))));
    await settle();
    expect(log).toContain('w told of /$1: ERR_DEFINITION_INVALID');
  });

  test('that exits lets the start succeed and ends the actor before its first message', async () => {
    const { system, settle, log } = world();
    const ref = system.spawn(probe(log, 'a', { start: (ctx) => ctx.exit() }));
    ref.tell('never');
    await settle();
    expect(log).toEqual(['a starts', 'a stops: normal']);
  });
});

describe('spawn', () => {
  test.each<[string, unknown, string]>([
    ['an empty name', { name: '' }, 'ERR_NAME_INVALID'],
    ['a name with a slash', { name: 'a/b' }, 'ERR_NAME_INVALID'],
    ['a name that is no string', { name: 1 }, 'ERR_NAME_INVALID'],
    ['no restart type', { restart: 'always' }, 'ERR_OPTIONS_INVALID'],
    ['a negative shutdown', { shutdown: -1 }, 'ERR_OPTIONS_INVALID'],
    ['a taken name', { name: 'taken' }, 'ERR_NAME_TAKEN'],
  ])('throws for %s', (_, options, code) => {
    const { system, log } = world();
    system.spawn(probe(log, 'a'), { name: 'taken' });
    expect(() => system.spawn(probe(log, 'b'), options as never)).toThrow(expect.objectContaining({ code }));
  });

  test('throws for what is no behaviour', () => {
    expect(() => world().system.spawn({} as Behaviour<never>)).toThrow(expect.objectContaining({ code: 'ERR_BEHAVIOUR_INVALID' }));
  });

  test('does not throw for a start that fails: the ref is dead, watchers are told, messages are dead letters', async () => {
    const { system, settle, log } = world();
    const ref = system.spawn(
      probe(log, 'a', {
        start: (ctx) => {
          ctx.spawn(probe(log, 'child'));
          fail('no');
        },
      }),
    );
    ref.tell('to nobody');
    expect(system.deadLetters().count).toBe(1);
    await expect(ref.ask(() => 'anyone?')).rejects.toMatchObject({ code: 'ERR_ACTOR_STOPPED' });
    system.spawn(watching(log, 'w', ref));
    await settle();
    expect(log).toEqual(['a starts', 'child starts', 'w starts', 'child stops: shutdown', 'w told of /$1: no']);
    expect(system.tree().children.map((child) => child.name)).toEqual(['$2']);
  });

  test('by an actor that has ended gives a dead ref', async () => {
    const { system, settle, log } = world();
    const ref = system.spawn(
      probe(log, 'a', {
        start: (ctx) => {
          ctx.clock.setTimeout(() => {}, 1);
          setImmediate(() => log.push(ctx.spawn(probe(log, 'late')).path));
        },
      }),
    );
    ref.tell((ctx) => ctx.exit());
    await settle();
    await settle();
    expect(log).toEqual(['a starts', 'a stops: normal', '/$1/$1']);
  });

  test('a name is free again once the actor has ended; the runtime makes one where none is given', async () => {
    const { system, settle, log } = world();
    const first = system.spawn(probe(log, 'a'), { name: '$1' });
    expect(system.spawn(probe(log, 'b')).path).toBe('/$2');
    first.tell((ctx) => ctx.exit());
    await settle();
    expect(system.spawn(probe(log, 'c'), { name: '$1' }).path).toBe('/$1');
  });

  test('throws after stop(), of the system and of its actors, and tell is a dead letter', async () => {
    const { system, settle, log } = world();
    let code: unknown;
    const ref = system.spawn(
      probe(log, 'a', {
        start: (ctx) => {
          setImmediate(() => {
            try {
              ctx.spawn(probe(log, 'late'));
            } catch (error) {
              code = (error as { code: string }).code;
            }
          });
        },
      }),
    );
    const stopped = system.stop();
    expect(system.stop()).toBe(stopped);
    expect(() => system.spawn(probe(log, 'b'))).toThrow(expect.objectContaining({ code: 'ERR_SYSTEM_STOPPED' }));
    ref.tell('late');
    expect(system.deadLetters().byReason).toEqual({ stopped: 1 });
    await settle();
    await stopped;
    expect(code).toBe('ERR_SYSTEM_STOPPED');
  });

  test('of the system is undone in reverse order, and leaves no open handle', async () => {
    const log: unknown[] = [];
    const before = process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout' || kind === 'Immediate').length;
    const system = createSystem();
    for (const name of ['a', 'b', 'c']) {
      system.spawn(
        probe(log, name, {
          start: (ctx) => {
            ctx.after(60_000, 'never');
            ctx.clock.setTimeout(() => {}, 60_000);
          },
        }),
      );
    }
    await system.stop();
    expect(log.slice(3)).toEqual(['c stops: shutdown', 'b stops: shutdown', 'a stops: shutdown']);
    expect(process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout' || kind === 'Immediate').length).toBeLessThanOrEqual(before);
  });
});

describe('a restart by a plain parent', () => {
  test.each<[string, Do, number]>([
    ['permanent', (ctx) => ctx.exit(), 2],
    ['permanent', dies('x'), 2],
    ['transient', (ctx) => ctx.exit(), 1],
    ['transient', (ctx) => ctx.exit('shutdown'), 1],
    ['transient', (ctx) => ctx.exit({ shutdown: 1 }), 1],
    ['transient', dies('x'), 2],
    ['temporary', dies('x'), 1],
  ])('of a %s child', async (restart, message, starts) => {
    const { system, settle, log } = world();
    system.spawn(probe(log, 'a'), { restart: restart as never }).tell(message);
    await settle();
    expect(log.filter((line) => line === 'a starts')).toHaveLength(starts);
  });

  test('is the default for no spawned child', async () => {
    const { system, settle, log } = world();
    system.spawn(probe(log, 'a')).tell(dies('x'));
    await settle();
    expect(log.filter((line) => line === 'a starts')).toHaveLength(1);
  });

  test('happens at most once in 5,000 ms; one failure more and it stays dead with that reason', async () => {
    const { system, settle, advance, log } = world();
    const ref = system.spawn(probe(log, 'a'), { restart: 'permanent' });
    const sibling = system.spawn(probe(log, 's'), { restart: 'permanent' });
    system.spawn(watching(log, 'w', ref));
    ref.tell(dies('first'));
    await settle();
    await advance(5001);
    ref.tell(dies('second'));
    await settle();
    expect(system.status(ref.path)?.restarts).toBe(2);
    await advance(5000);
    ref.tell(dies('third'));
    await settle();
    expect(log.at(-1)).toBe('w told of /$1: third');
    expect(system.status(sibling.path)?.state).toBe('running');
  });

  test('keeps the ref, its path, its watchers and the mail behind the failed message; the failed one is gone', async () => {
    const { system, settle, log } = world();
    const other = system.spawn(probe(log, 'other'), { name: 'other' });
    const ref = system.spawn(watching(log, 'a', other), { name: 'a', restart: 'permanent' });
    system.spawn(watching(log, 'w', ref));
    log.length = 0;
    ref.tell('1');
    ref.tell(dies('2'));
    ref.tell('3');
    ref.tell('4');
    await settle();
    expect(log).toEqual(['a got 1', 'a stops: 2', 'a starts', 'a got 3', 'a got 4']);
    expect(ref.path).toBe('/a');
    ref.tell((ctx) => ctx.exit());
    await settle();
    ref.tell((ctx) => ctx.exit());
    await settle();
    expect(log).toContain('w told of /a: normal');
  });

  test('forgets what the actor watched, queued notices and timers included', async () => {
    const { system, settle, advance, log } = world();
    const other = system.spawn(probe(log, 'other'));
    let first = true;
    const ref = system.spawn(
      probe(log, 'a', {
        start: (ctx) => {
          if (!first) return;
          first = false;
          ctx.watch(other);
          ctx.after(10, 'timer');
        },
      }),
      { restart: 'permanent' },
    );
    let release = (_: Error) => {};
    ref.tell(
      () =>
        new Promise<void>((_, reject) => {
          release = reject;
        }),
    );
    await settle();
    other.tell((ctx) => ctx.exit());
    await advance(10);
    expect(system.status(ref.path)?.mailbox).toBe(2);
    release(new Error('x'));
    await settle();
    expect(log.filter((line) => String(line).startsWith('a '))).toEqual(['a starts', 'a stops: x', 'a starts']);
    expect(system.deadLetters().count).toBe(0);
  });
});

test('terminateChild makes a ref dead for good', async () => {
  const { system, settle, log } = world();
  const behaviour = probe(log, 'a');
  const top = system.spawn(supervisor({ strategy: 'one-for-one', children: [{ id: 'a', start: behaviour }] }));
  let ref: ActorRef<Do> | undefined;
  void childOf(top, 'a', behaviour).then((found) => {
    ref = found;
  });
  await settle();
  void terminateChild(top, 'a');
  await settle();
  ref?.tell('x');
  expect(system.deadLetters().count).toBe(1);
});
