// Semantics 3, rule by rule: when a checkpoint is triggered, what ends it, what counts, what is kept.

import { describe, expect, it } from 'vitest';
import { Coordinated } from './coordinated.ts';

/** What tasks are told of checkpoints' beginnings. */
const triggers = (news: readonly string[]): string[] => news.filter((each) => each.includes('trigger'));

describe('periodic checkpoints', () => {
  it('begin an interval after the start, then an interval after the one before began', async () => {
    const c = await Coordinated.start(['a', 'b'], { every: 100 });
    await c.advance(99);
    expect(c.news()).toEqual([]);
    await c.advance(1);
    expect(c.news()).toEqual(['a trigger 1']);
    await c.advance(40);
    await c.completes(1);
    expect(c.news()).toEqual(['a complete 1', 'b complete 1', 'completed 1']);
    await c.advance(59);
    expect(c.news()).toEqual([]);
    await c.advance(1);
    expect(c.news()).toEqual(['a trigger 2']);
  });

  for (const [what, minPause, took, pause] of [
    ['at once where one took longer than the interval', 0, 130, 0],
    ['a pause after the completion, where that ends later than the interval', 60, 80, 60],
    ['an interval after the beginning, where the pause has passed by then', 60, 30, 70],
    ['a pause after the completion of one that took longer than the interval', 60, 130, 60],
    ['a pause that is longer than the interval', 250, 10, 250],
  ] as const)
    it(`begin ${what}`, async () => {
      const c = await Coordinated.start(['a'], { every: 100, minPause });
      await c.advance(100 + took);
      await c.completes(1);
      c.news();
      if (pause > 0) {
        await c.advance(pause - 1);
        expect(c.news()).toEqual([]);
        await c.advance(1);
      }
      await c.advance(0);
      expect(c.news()).toEqual(['a trigger 2']);
    });

  it('keep the pause after savepoints too, and not after what failed', async () => {
    const c = await Coordinated.start(['a'], { every: 100, minPause: 80, tolerate: 9 });
    await c.savepoint('s');
    await c.advance(50);
    await c.completes(1);
    expect(c.news()).toEqual(['a trigger 1', 's written']);
    await c.advance(79);
    expect(c.news()).toEqual([]);
    await c.advance(1);
    expect(c.news()).toEqual(['a trigger 2']);
    c.declines('a', 2);
    await c.advance(99);
    expect(triggers(c.news())).toEqual([]);
    await c.advance(1);
    expect(c.news()).toEqual(['a trigger 3']);
  });

  it('do not stand still where the clock of the machine is set back', async () => {
    const c = await Coordinated.start(['a'], { every: 100 });
    await c.advance(100);
    c.skew = -3_600_000;
    await c.completes(1);
    c.news();
    await c.advance(100);
    expect(c.news()).toEqual(['a trigger 2']);
    await c.completes(2);
    expect((await c.registry.checkpoints()).map(({ durationMs }) => durationMs)).toEqual([0, 0]);
  });

  it('come as late as is said, beyond what a timer of the machine can wait; never where that is Infinity', async () => {
    const month = 30 * 86_400_000;
    const c = await Coordinated.start(['a'], { every: month, timeout: 2 * month, tolerate: 9 });
    await c.advance(month - 1);
    expect(c.news()).toEqual([]);
    await c.advance(1);
    expect(c.news()).toEqual(['a trigger 1']);
    await c.advance(2 * month - 1);
    expect(c.news()).toEqual([]);
    await c.advance(1);
    expect(c.news().slice(0, 2)).toEqual(['a abort 1', 'failed 1 CHECKPOINT_EXPIRED']);
    const never = await Coordinated.start(['a'], { every: Number.POSITIVE_INFINITY, timeout: Number.POSITIVE_INFINITY });
    await never.advance(month);
    never.request('r');
    await never.advance(2 * month);
    expect(never.news()).toEqual(['a trigger 1']);
  });

  it('wait until every task is there', async () => {
    const c = await Coordinated.start(['a', 'b'], { every: 100 });
    c.loses('b');
    await c.advance(150);
    expect(c.news()).toEqual([]);
    c.attempt = 2;
    c.opens('b');
    await c.advance(100);
    expect(triggers(c.news())).toHaveLength(1);
  });
});

describe('one checkpoint is pending at most; what waits begins in this order', () => {
  it('savepoints, oldest first, each by itself; what users ask for, all in one; the periodic one', async () => {
    const c = await Coordinated.start(['a'], { every: 100 });
    await c.advance(100);
    c.request('first');
    await c.savepoint('s1');
    c.request('second');
    await c.savepoint('s2');
    await c.advance(200);
    expect(c.news()).toEqual(['a trigger 1']);
    await c.completes(1);
    expect(c.news().slice(-1)).toEqual(['a trigger 2']);
    await c.completes(2);
    expect(c.news().sort()).toEqual(['a trigger 3', 's1 written']);
    await c.completes(3);
    expect(c.news().sort()).toEqual(['a trigger 4', 's2 written']);
    await c.completes(4);
    // The periodic one was due all the while; the requests' began just now.
    expect(c.news()).toEqual(['first answered', 'second answered', 'a complete 4', 'completed 4']);
    await c.advance(100);
    expect(c.news()).toEqual(['a trigger 5']);
  });

  it('neither the pause nor the interval holds back what is asked for', async () => {
    const c = await Coordinated.start(['a'], { every: 1000, minPause: 500 });
    c.request('r');
    await c.settle();
    await c.completes(1);
    c.request('again');
    await c.settle();
    expect(triggers(c.news())).toEqual(['a trigger 1', 'a trigger 2']);
  });

  it('an abort lets the next one begin', async () => {
    const c = await Coordinated.start(['a'], { tolerate: 9 });
    c.request('r');
    await c.savepoint('s');
    await c.settle();
    // The savepoint was there when the request had begun already.
    c.declines('a', 1);
    await c.settle();
    expect(c.news()).toEqual(['a trigger 1', 'a abort 1', 'r refused', 'failed 1 CHECKPOINT_FAILED', 'a trigger 2']);
    await c.completes(2);
    expect(c.news()).toEqual(['s written']);
  });

  it('while a drain is under way nothing, and then the drained one, which says so', async () => {
    const c = await Coordinated.start(['a', 'b'], { every: 100 });
    await c.advance(100);
    c.request('drain', { stop: true, drained: true });
    await c.savepoint('s');
    // What was pending when the drain was asked for is none of it.
    await c.completes(1);
    expect(c.news()).toEqual(['a trigger 1', 'a complete 1', 'b complete 1', 'completed 1']);
    expect(await c.drained()).toBe(false);
    await c.advance(1000);
    c.ends('a');
    await c.settle();
    expect(c.news()).toEqual([]);
    c.ends('b');
    await c.settle();
    expect(c.news()).toEqual(['a trigger 2']);
    await c.completes(2);
    expect(c.news()).toContain('drain answered');
    expect(await c.drained()).toBe(true);
  });

  it('the last one follows the end of all input at once, and another where it fails', async () => {
    const c = await Coordinated.start(['a', 'b'], { tolerate: 9 });
    c.ends('a');
    await c.settle();
    expect(c.news()).toEqual([]);
    c.ends('b');
    await c.settle();
    expect(c.news()).toEqual(['a trigger 1']);
    c.declines('b', 1);
    await c.settle();
    expect(triggers(c.news())).toEqual(['a trigger 2']);
  });
});

describe('a checkpoint that is not acknowledged in time', () => {
  it('is given up with the names of those that are missing, everybody is told, and its id is not used again', async () => {
    const c = await Coordinated.start(['a', 'b', 'c'], { timeout: 500, tolerate: 9 });
    c.request('r');
    await c.settle();
    c.ack('a', 1);
    await c.advance(499);
    expect(c.news()).toEqual(['a trigger 1']);
    await c.advance(1);
    expect(c.news()).toEqual(['a abort 1', 'b abort 1', 'c abort 1', 'r refused', 'failed 1 CHECKPOINT_EXPIRED']);
    c.request('again');
    await c.settle();
    expect(c.news()).toEqual(['a trigger 2']);
    // Those of the first come too late, and count for nothing.
    for (const name of ['b', 'c']) c.ack(name, 1);
    c.ack('a', 2);
    await c.settle();
    expect(c.news()).toEqual([]);
    for (const name of ['b', 'c']) c.ack(name, 2);
    await c.settle();
    expect(c.news()).toContain('completed 2');
    expect(c.coordinator.figures).toMatchObject({ checkpointsCompleted: 1, checkpointsFailed: 1, acknowledgementsLate: 2 });
  });

  it('is not given up any more once all have acknowledged, however long writing takes', async () => {
    const c = await Coordinated.start(['a'], { timeout: 500 });
    let go = (): void => {};
    c.step = (name) => (name === 'checkpoint.register' ? new Promise((resolve) => (go = resolve)) : undefined);
    c.request('r');
    await c.settle();
    await c.completes(1);
    await c.advance(10_000);
    expect(c.news()).toEqual(['a trigger 1']);
    go();
    await c.settle();
    expect(c.news()).toEqual(['r answered', 'a complete 1', 'completed 1']);
  });
});

describe('failures that count against `tolerate`', () => {
  type Act = (c: Coordinated, id: number) => void | Promise<void>;
  const takes: Act = (c) => c.request('r');
  const saves: Act = (c, id) => c.savepoint(`s${id}`);
  const declined: Act = (c, id) => c.declines('a', id);
  const expired: Act = (c) => c.advance(1000);
  const completes: Act = (c, id) => c.completes(id);
  const lost: Act = async (c) => {
    c.loses('a');
    await c.settle();
    c.attempt += 1;
    c.opens('a');
  };
  const failing =
    (step: string): Act =>
    async (c, id) => {
      c.step = (name) => (name === step ? Promise.reject(new Error('disk full')) : undefined);
      await c.completes(id);
      c.step = () => undefined;
    };
  /** Nothing of it begins. */
  const unbegun: Act = async (c) => {
    c.step = (name) => (name === 'checkpoint.trigger' ? Promise.reject(new Error('disk full')) : undefined);
    c.request('r');
    await c.settle();
    c.step = () => undefined;
  };

  for (const [what, tolerate, rounds, intolerable] of [
    ['one that a task declines', 0, [[takes, declined]], true],
    ['one whose time ran out', 0, [[takes, expired]], true],
    ['one that could not begin', 0, [[unbegun]], true],
    ['one whose metadata could not be written', 0, [[takes, failing('checkpoint.metadata.write')]], true],
    ['not one that a restart ends', 0, [[takes, lost]], false],
    ['a savepoint that a task declines', 0, [[saves, declined]], true],
    ['not a savepoint whose time ran out', 0, [[saves, expired]], false],
    ['not a savepoint whose files cannot be written', 0, [[saves, failing('savepoint.file')]], false],
    [
      'as many as are tolerated are',
      2,
      [
        [takes, declined],
        [takes, expired],
      ],
      false,
    ],
    [
      'one more is not',
      2,
      [
        [takes, declined],
        [takes, expired],
        [takes, declined],
      ],
      true,
    ],
    [
      'a success makes good those before',
      1,
      [
        [takes, declined],
        [takes, completes],
        [takes, declined],
      ],
      false,
    ],
    [
      'a savepoint that succeeds too',
      1,
      [
        [takes, declined],
        [saves, completes],
        [takes, declined],
      ],
      false,
    ],
    [
      'what does not count does not make good either',
      1,
      [
        [takes, declined],
        [takes, lost],
        [takes, declined],
      ],
      true,
    ],
    ['each id once', 1, [[takes, declined, declined]], false],
  ] as const)
    it(what, async () => {
      const c = await Coordinated.start(['a'], { tolerate, timeout: 1000 });
      let id = 0;
      for (const round of rounds) {
        id += 1;
        for (const act of round) {
          await act(c, id);
          await c.settle();
        }
      }
      expect(c.heard.filter((each) => each.startsWith('intolerable'))).toHaveLength(intolerable ? 1 : 0);
    });

  it('after they were too many counting begins anew', async () => {
    const c = await Coordinated.start(['a'], { tolerate: 1 });
    for (let id = 1; id <= 4; id++) {
      c.request('r');
      await c.settle();
      c.declines('a', id);
      await c.settle();
    }
    expect(c.heard.filter((each) => each.startsWith('intolerable'))).toHaveLength(2);
  });

  it('a pointer of which nobody knows whether it was written is never tolerated, and nothing is deleted', async () => {
    const c = await Coordinated.start(['a'], { tolerate: 99 });
    c.step = (name) => (name === 'checkpoint.register' ? Promise.reject(new Error('connection lost')) : undefined);
    c.request('r');
    await c.settle();
    await c.completes(1);
    expect(c.news().slice(1)).toEqual(['a abort 1', 'r refused', 'failed 1 CHECKPOINT_FAILED', 'intolerable CHECKPOINT_FAILED']);
    expect(await c.stored()).toEqual(['chk-1-a1', 'chk-1-a1.copy']);
  });

  it('of one that surely has no pointer nothing stays but what the next is made of', async () => {
    const c = await Coordinated.start(['a'], { tolerate: 99 });
    const file = await c.write('delta-a-0-a1-1-1');
    c.step = (name) => (name === 'checkpoint.metadata.written' ? Promise.reject(new Error('disk full')) : undefined);
    c.request('r');
    await c.settle();
    c.ack('a', 1, { files: [file] });
    await c.settle();
    expect(await c.stored()).toEqual(['delta-a-0-a1-1-1']);
  });
});

describe('acknowledgements', () => {
  for (const [what, act] of [
    ['that come twice', (c: Coordinated) => [0, 1, 2].forEach(() => void c.ack('a', 1))],
    ['of another id', (c: Coordinated) => c.ack('b', 7)],
    ['of a task that nobody knows', (c: Coordinated) => c.ack('z', 1)],
    ['of an attempt that is over', (c: Coordinated) => c.ack('b', 1, { attempt: 0 })],
    ['and refusals of a task that has acknowledged', (c: Coordinated) => c.declines('a', 1)],
  ] as const)
    it(`${what} do not count`, async () => {
      const c = await Coordinated.start(['a', 'b']);
      c.request('r');
      await c.settle();
      c.ack('a', 1);
      act(c);
      await c.settle();
      expect(c.news()).toEqual(['a trigger 1']);
      c.ack('b', 1);
      await c.settle();
      expect(c.news()).toContain('completed 1');
    });

  it('nothing is told to tasks before the pointer is registered, and everything is in this order', async () => {
    const c = await Coordinated.start(['a']);
    c.request('r');
    await c.settle();
    c.steps.length = 0;
    await c.completes(1);
    expect(c.steps.filter((step) => step.startsWith('checkpoint.'))).toEqual([
      'checkpoint.metadata.write',
      'checkpoint.metadata.copy',
      'checkpoint.metadata.written',
      'checkpoint.register',
      'checkpoint.registered',
    ]);
    expect(c.news()).toEqual(['a trigger 1', 'r answered', 'a complete 1', 'completed 1']);
  });

  it('completion tells tasks the id, up to which they commit: who asked for commits waits until all have got so far', async () => {
    const c = await Coordinated.start(['a', 'b']);
    c.request('r', { commits: true });
    await c.settle();
    await c.completes(1);
    c.request('later');
    await c.settle();
    await c.completes(2);
    c.commits('a', 1);
    await c.settle();
    expect(c.news().filter((each) => each.startsWith('r'))).toEqual([]);
    // The notice of the first was lost; that of the second covers it.
    c.commits('b', 2);
    await c.settle();
    expect(c.news()).toContain('r answered');
  });
});

describe('the last checkpoint of a stop', () => {
  it('is followed by another where a task was lost while it was written, and came back from an older one', async () => {
    const c = await Coordinated.start(['a', 'b']);
    let go = (): void => {};
    const held = new Promise<void>((resolve) => {
      go = resolve;
    });
    c.step = (name) => (name === 'checkpoint.register' ? held : undefined);
    c.request('stop', { stop: true, commits: true });
    await c.settle();
    await c.completes(1);
    c.loses('a', 'b');
    await c.settle();
    c.step = () => undefined;
    go();
    await c.settle();
    c.news();
    c.coordinator.wentBack(undefined);
    c.attempt = 2;
    c.opens('a', 'b');
    c.request('again', { stop: true, commits: true });
    await c.settle();
    expect(c.news()).toEqual(['stop refused', 'a trigger 2']);
  });
});

describe('what a checkpoint that came to nothing leaves', () => {
  it('of a task that runs: everything, since the next one names it', async () => {
    const c = await Coordinated.start(['a'], { tolerate: 9, timeout: 100 });
    const files = [await c.write('delta-a-0-a1-1-1')];
    c.request('r');
    await c.advance(100);
    c.ack('a', 1, { files });
    c.request('again');
    await c.settle();
    files.push(await c.write('delta-a-0-a1-2-1'));
    c.ack('a', 2, { files });
    await c.settle();
    expect(c.news()).toContain('completed 2');
    expect(await c.stored()).toEqual(['chk-2-a1', 'chk-2-a1.copy', 'delta-a-0-a1-1-1', 'delta-a-0-a1-2-1']);
  });

  it('of an attempt that is over: only what a retained checkpoint names, whether it was acknowledged before the end or after', async () => {
    const c = await Coordinated.start(['a', 'b'], { retain: 1 });
    const shared = await c.write('delta-a-0-a1-1-1');
    c.request('r');
    await c.settle();
    c.ack('a', 1, { files: [shared] });
    c.ack('b', 1);
    await c.settle();
    const before = await c.write('delta-a-0-a1-2-1');
    const others = await c.write('delta-b-0-a1-2-1');
    c.request('r');
    await c.settle();
    c.ack('a', 2, { files: [shared, before] });
    c.loses('a', 'b');
    await c.settle();
    c.ack('b', 2, { files: [others] });
    c.attempt = 2;
    c.opens('a', 'b');
    c.request('r');
    await c.settle();
    const after = await c.write('delta-a-0-a2-3-1');
    c.ack('a', 3, { files: [shared, after] });
    c.ack('b', 3);
    await c.settle();
    expect(await c.stored()).toEqual(['chk-3-a2', 'chk-3-a2.copy', 'delta-a-0-a1-1-1', 'delta-a-0-a2-3-1']);
  });

  it('before a lineage has a checkpoint of its own nothing goes: it rests on what it was forked from', async () => {
    const c = await Coordinated.start(['a', 'b']);
    const imported = await c.write('import-a1-0');
    c.request('r');
    await c.settle();
    c.ack('a', 1, { files: [imported] });
    c.loses('a', 'b');
    c.ack('b', 1, { files: [imported] });
    await c.settle();
    await c.coordinator.concluded();
    expect(await c.stored()).toContain('import-a1-0');
  });
});

describe('retention', () => {
  for (const [retain, left] of [
    [1, [4]],
    [3, [2, 3, 4]],
    [9, [1, 2, 3, 4]],
  ] as const)
    it(`of ${retain} keeps the newest, with what they share and without what only older ones name`, async () => {
      const c = await Coordinated.start(['a'], { retain });
      const base = await c.write('base-a-0-a1-1');
      for (let id = 1; id <= 4; id++) {
        c.request('r');
        await c.settle();
        c.ack('a', id, { files: [base, await c.write(`delta-a-0-a1-${id}-1`)] });
        await c.settle();
      }
      expect(await c.retained()).toEqual(left);
      const stored = await c.stored();
      expect(stored.filter((name) => name.startsWith('delta'))).toEqual(left.map((id) => `delta-a-0-a1-${id}-1`));
      expect(stored).toContain('base-a-0-a1-1');
      expect(stored.filter((name) => name.startsWith('chk') && !name.endsWith('copy'))).toEqual(left.map((id) => `chk-${id}-a1`));
    });

  it('waits until the newest one has been read that somebody reads, however many follow it', async () => {
    const c = await Coordinated.start(['a'], { retain: 1 });
    let read!: () => void;
    const until = new Promise<void>((resolve) => {
      read = resolve;
    });
    c.request('first');
    await c.settle();
    await c.completes(1);
    const reading = c.coordinator.reading(async (newest) => {
      await until;
      return newest!.id;
    });
    for (const id of [2, 3]) {
      c.request(`another ${id}`);
      await c.settle();
      await c.completes(id);
      await c.stored();
    }
    expect(await c.retained()).toEqual([1, 3]);
    read();
    expect(await reading).toBe(1);
    c.request('last');
    await c.settle();
    await c.completes(4);
    await c.stored();
    expect(await c.retained()).toEqual([4]);
  });

  it('leaves a savepoint that was claimed alone while it is read', async () => {
    const released: number[] = [];
    const restored = { id: 0, path: '/savepoints/s', bytes: 1, startedAt: 0, durationMs: 0 };
    const c = await Coordinated.start(['a'], { restored, release: async () => void released.push(1) });
    let read!: () => void;
    const reading = c.coordinator.reading(
      () =>
        new Promise<void>((resolve) => {
          read = resolve;
        }),
    );
    c.request('first');
    await c.settle();
    await c.completes(1);
    await c.stored();
    expect(released).toEqual([]);
    read();
    await reading;
    c.request('second');
    await c.settle();
    await c.completes(2);
    await c.stored();
    expect(released).toEqual([1]);
  });

  it('a savepoint takes the place of no checkpoint', async () => {
    const c = await Coordinated.start(['a'], { retain: 1 });
    c.request('r');
    await c.settle();
    await c.completes(1);
    for (const id of [2, 3]) {
      await c.savepoint(`s${id}`);
      await c.settle();
      await c.completes(id);
    }
    expect(await c.retained()).toEqual([1]);
    expect(await c.stored()).toEqual(['chk-1-a1', 'chk-1-a1.copy']);
  });
});
