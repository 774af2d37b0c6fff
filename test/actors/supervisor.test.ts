import { describe, expect, test } from 'vitest';
import {
  type ActorRef,
  type ChildSpec,
  childOf,
  countChildren,
  deleteChild,
  restartChild,
  type SupervisorOptions,
  startChild,
  supervisor,
  terminateChild,
  whichChildren,
} from '../../actors/index.ts';
import { testSystem } from '../../actors/testing.ts';
import { type Do, dies, fail, probe, watching } from './probe.ts';

type Children = Record<string, Partial<ChildSpec> & { handlers?: Parameters<typeof probe>[2] }>;

function world(children: Children, options: Partial<SupervisorOptions> = {}, seed = 11) {
  const log: string[] = [];
  const t = testSystem({ seed, random: () => 0.5, onFailure: () => {} });
  const specs = Object.entries(children).map(([id, { handlers, ...spec }]) => ({ id, start: probe(log, id, handlers), ...spec }));
  const top = t.system.spawn(supervisor({ strategy: 'one-for-one', intensity: { max: 100, within: 5000 }, children: specs, ...options }), { name: 'top' });
  const of = async (id: string): Promise<ActorRef<Do>> => asked(childOf(top, id, probe(log, id)));
  /** Settles until the promise has, as a program outside would wait. */
  const asked = async <R>(promise: Promise<R>): Promise<R> => {
    promise.catch(() => {});
    await t.settle();
    return promise;
  };
  const told = async (id: string, message: Do): Promise<void> => {
    (await of(id)).tell(message);
    await t.settle();
  };
  const states = async () => Object.fromEntries((await asked(whichChildren(top))).map((child) => [child.id, child.state]));
  const begin = () => {
    log.length = 0;
  };
  return { ...t, log, top, of, asked, told, states, begin };
}

const abc: Children = { a: {}, b: {}, c: {} };

describe('starting and stopping', () => {
  test('children start in list order and stop in reverse', async () => {
    const { system, settle, log } = world(abc);
    const stopped = system.stop();
    await settle();
    await stopped;
    expect(log).toEqual(['a starts', 'b starts', 'c starts', 'c stops: shutdown', 'b stops: shutdown', 'a stops: shutdown']);
  });

  test('if one fails to start, those started are stopped in reverse and the supervisor fails', async () => {
    const { system, settle, log, top } = world({ a: {}, b: {}, c: { handlers: { start: () => fail('no') } }, d: {} });
    system.spawn(watching(log, 'w', top));
    await settle();
    expect(log).toEqual(['a starts', 'b starts', 'c starts', 'w starts', 'b stops: shutdown', 'a stops: shutdown', 'w told of /top: ERR_CHILD_START_FAILED']);
  });
});

describe('strategies', () => {
  test.each<[SupervisorOptions['strategy'], string[]]>([
    ['one-for-one', ['b stops: x', 'b starts']],
    ['one-for-all', ['b stops: x', 'c stops: shutdown', 'a stops: shutdown', 'a starts', 'b starts', 'c starts']],
    ['rest-for-one', ['b stops: x', 'c stops: shutdown', 'b starts', 'c starts']],
  ])('%s', async (strategy, expected) => {
    const { told, begin, log } = world(abc, { strategy });
    begin();
    await told('b', dies('x'));
    expect(log).toEqual(expected);
  });

  test('a group restart keeps refs and mail of siblings, and nobody who watches them is told', async () => {
    const { system, settle, of, log, begin } = world(abc, { strategy: 'one-for-all' });
    const [a, b, c] = [await of('a'), await of('b'), await of('c')];
    system.spawn(watching(log, 'w', a, b, c));
    a.tell(() => new Promise(() => {}));
    a.tell('kept');
    await settle();
    begin();
    b.tell(dies('x'));
    b.tell('kept too');
    await settle();
    expect(log.filter((line) => line.includes('got'))).toEqual(expect.arrayContaining(['a got kept', 'b got kept too']));
    expect(log.join()).not.toContain('told');
    c.tell('alive');
    await settle();
    expect(log.at(-1)).toBe('c got alive');
  });

  test('a temporary sibling ends for good in a group restart: watchers are told shutdown, its spec is gone', async () => {
    const { system, settle, of, told, log, states } = world({ a: {}, t: { restart: 'temporary' }, c: {} }, { strategy: 'one-for-all' });
    system.spawn(watching(log, 'w', await of('t')));
    await told('a', dies('x'));
    await settle();
    expect(log).toContain('w told of /top/t: shutdown');
    expect(await states()).toEqual({ a: 'running', c: 'running' });
  });

  test('a group restart starts also a child that had been terminated by hand', async () => {
    const { asked, told, top, states } = world(abc, { strategy: 'one-for-all' });
    await asked(terminateChild(top, 'c'));
    expect(await states()).toEqual({ a: 'running', b: 'running', c: 'stopped' });
    await told('a', dies('x'));
    expect(await states()).toEqual({ a: 'running', b: 'running', c: 'running' });
  });

  test('two siblings that fail at once are restarted, once each, whatever the order', async () => {
    for (let seed = 0; seed < 30; seed++) {
      const { of, settle, states, system } = world(abc, { strategy: 'one-for-all' }, seed);
      const [a, b] = [await of('a'), await of('b')];
      a.tell(dies('x'));
      b.tell(dies('y'));
      await settle();
      expect(await states()).toEqual({ a: 'running', b: 'running', c: 'running' });
      expect(system.tree().children[0]?.state).toBe('running');
    }
  });
});

describe('restart types', () => {
  test('a transient child that ended as it should keeps its spec; a temporary one loses it', async () => {
    const { told, states } = world({ p: {}, tr: { restart: 'transient' }, te: { restart: 'temporary' } });
    for (const id of ['p', 'tr', 'te']) await told(id, (ctx) => ctx.exit());
    expect(await states()).toEqual({ p: 'running', tr: 'stopped' });
  });
});

describe('intensity', () => {
  test('one restart in 5,000 ms by default; one more stops all children in reverse and the supervisor exits with shutdown', async () => {
    const { system, settle, advance, told, of, log, begin, top } = world(abc, { intensity: undefined });
    system.spawn(watching(log, 'w', top));
    await told('a', dies('x'));
    await advance(5001);
    await told('a', dies('x'));
    await advance(5000);
    const a = await of('a');
    begin();
    a.tell(dies('last'));
    await settle();
    expect(log).toEqual(['a stops: last', 'c stops: shutdown', 'b stops: shutdown', 'w told of /top: shutdown']);
  });

  test('a group restart counts once', async () => {
    const { told, states } = world(abc, { strategy: 'one-for-all', intensity: { max: 1, within: 5000 } });
    await told('a', dies('x'));
    expect(await states()).toEqual({ a: 'running', b: 'running', c: 'running' });
  });

  test('each try of a restart that fails counts', async () => {
    let starts = 0;
    const { system, settle, told, log, top } = world(
      { a: { handlers: { start: () => void (++starts > 1 && fail('down')) } } },
      { intensity: { max: 3, within: 5000 } },
    );
    system.spawn(watching(log, 'w', top));
    await told('a', dies('x'));
    await settle();
    expect(starts).toBe(4);
    expect(log.at(-1)).toBe('w told of /top: shutdown');
  });

  test.each([
    ['transient', 'stopped', 1],
    ['permanent', 'running', 2],
  ] as const)('a supervisor that gave up exits with shutdown: a %s entry for it is then %s', async (restart, state, starts) => {
    const leaves: string[] = [];
    const leaf = probe(leaves, 'leaf');
    const inner = supervisor({ strategy: 'one-for-one', intensity: { max: 0, within: 5000 }, children: [{ id: 'leaf', start: leaf }] });
    const { asked, settle, top, states } = world({ inner: { start: inner, restart } });
    const middle = await asked(childOf(top, 'inner', inner));
    (await asked(childOf(middle, 'leaf', leaf))).tell(dies('x'));
    await settle();
    expect(await states()).toEqual({ inner: state });
    expect(leaves.filter((line) => line === 'leaf starts')).toHaveLength(starts);
  });
});

describe('backoff', () => {
  const backoff = { initial: 100, max: 1000 };

  test('the n-th restart in a row waits longer; it is the first again once the child has run for max ms', async () => {
    const { clock, advance, told, states, log } = world({ a: {} }, { backoff });
    for (const wait of [100, 200, 400, 800, 1000, 1000]) {
      await told('a', dies('x'));
      expect(await states()).toEqual({ a: 'restarting' });
      await advance(wait - 1);
      expect(await states()).toEqual({ a: 'restarting' });
      await advance(1);
      expect(await states()).toEqual({ a: 'running' });
    }
    await advance(1000);
    await told('a', dies('x'));
    await advance(100);
    expect(await states()).toEqual({ a: 'running' });
    expect(clock.now()).toBe(3500 + 1000 + 100);
    expect(log.filter((line) => line === 'a starts')).toHaveLength(8);
  });

  test('the wait comes before any sibling of the group is stopped, mail is held, and other requests are served', async () => {
    const { advance, settle, of, told, asked, top, log, begin, states } = world(abc, { strategy: 'one-for-all', backoff });
    const a = await of('a');
    await told('a', dies('x'));
    begin();
    a.tell('held');
    await settle();
    expect(await asked(countChildren(top))).toMatchObject({ specs: 3, active: 2 });
    expect(await states()).toEqual({ a: 'restarting', b: 'running', c: 'running' });
    expect(log).toEqual([]);
    await advance(100);
    expect(log).toEqual(['c stops: shutdown', 'b stops: shutdown', 'a starts', 'b starts', 'c starts', 'a got held']);
  });

  test('a restarting child can be terminated, and is not started then', async () => {
    const { advance, told, asked, top, log, states } = world({ a: {} }, { backoff });
    await told('a', dies('x'));
    await asked(terminateChild(top, 'a'));
    await advance(10_000);
    expect(log).toEqual(['a starts', 'a stops: x']);
    expect(await states()).toEqual({ a: 'stopped' });
  });
});

describe('autoShutdown', () => {
  test.each<['any-significant' | 'all-significant', string[], boolean]>([
    ['any-significant', ['s1'], true],
    ['any-significant', ['plain'], false],
    ['all-significant', ['s1'], false],
    ['all-significant', ['s1', 's2'], true],
  ])('%s with %j ended: the supervisor ends %s', async (autoShutdown, ended, expected) => {
    const { system, settle, told, log, top } = world(
      { s1: { restart: 'transient', significant: true }, s2: { restart: 'temporary', significant: true }, plain: { restart: 'transient' } },
      { autoShutdown },
    );
    system.spawn(watching(log, 'w', top));
    for (const id of ended) await told(id, (ctx) => ctx.exit());
    await settle();
    expect(log.includes('w told of /top: shutdown')).toBe(expected);
  });

  test('a significant child that was terminated by hand does not count', async () => {
    const { asked, top, states } = world({ s: { restart: 'transient', significant: true } }, { autoShutdown: 'any-significant' });
    await asked(terminateChild(top, 's'));
    expect(await states()).toEqual({ s: 'stopped' });
  });
});

describe('requests', () => {
  test('startChild starts at the end and resolves to the ref', async () => {
    const { asked, top, log, states } = world({ a: {} });
    const ref = await asked(startChild(top, { id: 'z', start: probe(log, 'z') }));
    expect(ref.path).toBe('/top/z');
    expect(await states()).toEqual({ a: 'running', z: 'running' });
  });

  test('whichChildren lists in start order, with refs of those that run', async () => {
    const { asked, told, top } = world({ a: {}, b: { restart: 'transient' } });
    await told('b', (ctx) => ctx.exit());
    const listed = await asked(whichChildren(top));
    expect(listed.map((child) => [child.id, child.ref?.path, child.state, child.restart])).toEqual([
      ['a', '/top/a', 'running', 'permanent'],
      ['b', undefined, 'stopped', 'transient'],
    ]);
  });

  test('countChildren counts specs, those that run, supervisors and workers', async () => {
    const { asked, top } = world({ a: {}, s: { start: supervisor({ strategy: 'one-for-one', children: [] }) } });
    await asked(terminateChild(top, 'a'));
    expect(await asked(countChildren(top))).toEqual({ specs: 2, active: 1, supervisors: 1, workers: 1 });
  });

  test('terminateChild and deleteChild resolve to undefined; restartChild after terminateChild gives a new ref at the old place', async () => {
    const { asked, of, top, log, states, system } = world(abc);
    const old = await of('a');
    expect(await asked(terminateChild(top, 'a'))).toBeUndefined();
    expect(system.status('/top/a')?.state).toBe('stopped');
    const fresh = await asked(restartChild(top, 'a'));
    expect(fresh).not.toBe(old);
    old.tell('dead letter');
    expect(system.deadLetters().count).toBe(1);
    expect(system.status('/top')?.children.map((child) => child.name)).toEqual(['a', 'b', 'c']);
    expect(log.filter((line) => line === 'a starts')).toHaveLength(2);
    await asked(terminateChild(top, 'b'));
    expect(await asked(deleteChild(top, 'b'))).toBeUndefined();
    expect(await states()).toEqual({ a: 'running', c: 'running' });
  });

  test('terminateChild waits for the end of the child, and requests behind it for that', async () => {
    const order: string[] = [];
    let release = () => {};
    const stopping = () =>
      new Promise<void>((resolve) => {
        release = resolve;
      });
    const { settle, top, advance } = world({ a: { handlers: { stopping } } });
    void terminateChild(top, 'a').then(() => order.push('terminated'));
    void countChildren(top).then(({ active }) => order.push(`active ${active}`));
    await advance(100);
    expect(order).toEqual([]);
    release();
    await settle();
    expect(order).toEqual(['terminated', 'active 0']);
  });

  test.each<[string, string]>([
    ['restartChild', 'ERR_CHILD_NOT_FOUND'],
    ['terminateChild', 'ERR_CHILD_NOT_FOUND'],
    ['deleteChild', 'ERR_CHILD_NOT_FOUND'],
    ['childOf', 'ERR_CHILD_NOT_FOUND'],
  ])('%s of an unknown id is refused with %s', async (name, code) => {
    const { asked, top, log } = world(abc);
    const call = { restartChild, terminateChild, deleteChild, childOf: (of: typeof top, id: string) => childOf(of, id, probe(log, 'x')) }[
      name
    ] as typeof deleteChild;
    await expect(asked(call(top, 'nobody'))).rejects.toMatchObject({ code, name: 'ActorError', retryable: false });
  });

  test('refusals of what is in the way', async () => {
    const { asked, told, top, log } = world({ a: {}, b: { restart: 'transient' }, c: {} }, { backoff: { initial: 100, max: 1000 } });
    await told('b', (ctx) => ctx.exit());
    await told('c', dies('x'));
    const again = (id: string) => startChild(top, { id, start: probe(log, id) });
    await expect(asked(restartChild(top, 'a'))).rejects.toMatchObject({ code: 'ERR_CHILD_RUNNING' });
    await expect(asked(deleteChild(top, 'a'))).rejects.toMatchObject({ code: 'ERR_CHILD_RUNNING' });
    await expect(asked(restartChild(top, 'c'))).rejects.toMatchObject({ code: 'ERR_CHILD_RESTARTING' });
    await expect(asked(deleteChild(top, 'c'))).rejects.toMatchObject({ code: 'ERR_CHILD_RESTARTING' });
    await expect(asked(again('a'))).rejects.toMatchObject({ code: 'ERR_CHILD_ALREADY_STARTED' });
    await expect(asked(again('b'))).rejects.toMatchObject({ code: 'ERR_CHILD_ALREADY_PRESENT' });
    await expect(asked(again('c'))).rejects.toMatchObject({ code: 'ERR_CHILD_ALREADY_PRESENT' });
    await expect(asked(again('bad/id'))).rejects.toMatchObject({ code: 'ERR_CHILD_SPEC_INVALID' });
  });

  test('a start that fails is refused with its cause, and startChild keeps no spec', async () => {
    let starts = 0;
    const { asked, top, log, states } = world({ a: { handlers: { start: () => void (++starts > 1 && fail('not again')) } } });
    const bad = { id: 'bad', start: probe(log, 'bad', { start: () => fail('no') }) };
    await expect(asked(startChild(top, bad))).rejects.toMatchObject({ code: 'ERR_CHILD_START_FAILED', cause: { message: 'no' } });
    await asked(terminateChild(top, 'a'));
    await expect(asked(restartChild(top, 'a'))).rejects.toMatchObject({ code: 'ERR_CHILD_START_FAILED', cause: { message: 'not again' } });
    expect(await states()).toEqual({ a: 'stopped' });
  });

  test('of a dead supervisor, and of no supervisor', async () => {
    const { system, asked, top, log, settle } = world(abc);
    const worker = system.spawn(probe(log, 'worker'));
    await expect(countChildren(worker as never)).rejects.toMatchObject({ code: 'ERR_NOT_A_SUPERVISOR' });
    const pending = countChildren(top);
    const stopped = system.stop();
    await expect(asked(pending.then(() => countChildren(top)))).rejects.toMatchObject({ code: 'ERR_ACTOR_STOPPED' });
    await settle();
    await stopped;
    await expect(asked(countChildren(top))).rejects.toMatchObject({ code: 'ERR_ACTOR_STOPPED' });
  });
});

describe('supervisor()', () => {
  const start = probe([], 'x');
  test.each<[string, unknown, string]>([
    ['an unknown strategy', { strategy: 'some' }, 'ERR_SUPERVISOR_INVALID'],
    ['a negative intensity', { intensity: { max: -1, within: 5 } }, 'ERR_SUPERVISOR_INVALID'],
    ['an empty period', { intensity: { max: 1, within: 0 } }, 'ERR_SUPERVISOR_INVALID'],
    ['a backoff that shrinks', { backoff: { initial: 10, max: 5 } }, 'ERR_SUPERVISOR_INVALID'],
    ['a jitter above one', { backoff: { initial: 1, max: 5, jitter: 2 } }, 'ERR_SUPERVISOR_INVALID'],
    ['an unknown autoShutdown', { autoShutdown: 'yes' }, 'ERR_SUPERVISOR_INVALID'],
    ['no children', { children: undefined }, 'ERR_SUPERVISOR_INVALID'],
    ['a child without an id', { children: [{ start }] }, 'ERR_CHILD_SPEC_INVALID'],
    ['a child without a start', { children: [{ id: 'a' }] }, 'ERR_CHILD_SPEC_INVALID'],
    ['a bad restart type', { children: [{ id: 'a', start, restart: 'often' }] }, 'ERR_CHILD_SPEC_INVALID'],
    ['a bad shutdown', { children: [{ id: 'a', start, shutdown: 'soon' }] }, 'ERR_CHILD_SPEC_INVALID'],
    [
      'two children of one id',
      {
        children: [
          { id: 'a', start },
          { id: 'a', start },
        ],
      },
      'ERR_CHILD_SPEC_INVALID',
    ],
    ['a significant child without autoShutdown', { children: [{ id: 'a', start, restart: 'transient', significant: true }] }, 'ERR_CHILD_SPEC_INVALID'],
    ['a significant permanent child', { autoShutdown: 'any-significant', children: [{ id: 'a', start, significant: true }] }, 'ERR_CHILD_SPEC_INVALID'],
  ])('refuses %s before anything runs', (_, options, code) => {
    expect(() => supervisor({ strategy: 'one-for-one', children: [], ...(options as object) })).toThrow(expect.objectContaining({ code }));
  });
});
