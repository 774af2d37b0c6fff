import { describe, expect, test } from 'vitest';
import { assign, createMachine, fromCallback, fromPromise, fromTransition, setup } from 'xstate';
import { type ActorRef, fromMachine } from '../../actors/index.ts';
import { testSystem } from '../../actors/testing.ts';
import { fail, watching } from './probe.ts';

const light = createMachine({
  id: 'light',
  initial: 'off',
  states: { off: { on: { flip: 'on', end: 'done' } }, on: { on: { flip: 'off' }, after: { 100: 'off' } }, done: { type: 'final' } },
});

function world() {
  const log: unknown[] = [];
  const failures: unknown[] = [];
  return { ...testSystem({ seed: 4, onFailure: (_, error, phase) => void failures.push([phase, (error as Error).message]) }), log, failures };
}

describe('fromMachine', () => {
  test('takes events as messages and shows its snapshot', async () => {
    const { system, settle } = world();
    const ref = system.spawn(fromMachine(light), { name: 'light' });
    ref.tell({ type: 'flip' });
    await settle();
    expect(system.status('/light')).toMatchObject({ kind: 'machine', snapshot: { value: 'on', context: {}, status: 'active' } });
  });

  test('a machine that is done exits normal', async () => {
    const { system, settle, log } = world();
    const ref = system.spawn(fromMachine(light));
    system.spawn(watching(log, 'w', ref));
    ref.tell({ type: 'end' });
    await settle();
    expect(log.at(-1)).toBe('w told of /$1: normal');
  });

  test('an error status exits with that error, and nothing reaches a global handler', async () => {
    const { system, settle, log, failures } = world();
    const uncaught: unknown[] = [];
    const listen = (error: unknown) => void uncaught.push(error);
    process.on('uncaughtException', listen);
    const broken = createMachine({ on: { go: { actions: () => fail('in an action') } } });
    const ref = system.spawn(fromMachine(broken));
    system.spawn(watching(log, 'w', ref));
    ref.tell({ type: 'go' });
    await settle();
    await new Promise((resolve) => setTimeout(resolve, 5));
    process.off('uncaughtException', listen);
    expect(log.at(-1)).toBe('w told of /$1: in an action');
    expect(failures).toEqual([['receive', 'in an action']]);
    expect(uncaught).toEqual([]);
  });

  test.each([
    ['a promise that rejects', fromPromise(async () => fail('rejected'))],
    ['an initial state in error', createMachine({ entry: () => fail('rejected') })],
  ])('%s ends it with that error', async (_, logic) => {
    const { system, settle, log } = world();
    system.spawn(watching(log, 'w', system.spawn(fromMachine(logic))));
    await settle();
    expect(log.at(-1)).toBe('w told of /$1: rejected');
  });

  test('its clock is the system’s, and its delays end with it', async () => {
    const { system, settle, advance } = world();
    const ref = system.spawn(fromMachine(light), { name: 'light' });
    ref.tell({ type: 'flip' });
    await advance(99);
    expect(system.status('/light')?.snapshot).toMatchObject({ value: 'on' });
    await advance(1);
    expect(system.status('/light')?.snapshot).toMatchObject({ value: 'off' });
    ref.tell({ type: 'flip' });
    await settle();
    const stopped = system.stop();
    await settle();
    await stopped;
    await advance(1000);
  });

  test('every start begins from the initial snapshot, with the input', async () => {
    const { system, settle } = world();
    const counting = setup({
      types: { context: {} as { n: number }, input: {} as { from: number }, events: {} as { type: 'add' } | { type: 'break' } },
    }).createMachine({
      context: ({ input }) => ({ n: input.from }),
      on: { add: { actions: assign({ n: ({ context }) => context.n + 1 }) }, break: { actions: () => fail('x') } },
    });
    const ref = system.spawn(fromMachine(counting, { input: { from: 5 } }), { name: 'm', restart: 'permanent' });
    ref.tell({ type: 'add' });
    await settle();
    expect(system.status('/m')?.snapshot).toMatchObject({ context: { n: 6 } });
    ref.tell({ type: 'break' });
    ref.tell({ type: 'add' });
    await settle();
    expect(system.status('/m')).toMatchObject({ restarts: 1, snapshot: { context: { n: 6 } } });
  });

  test('takes any actor logic', async () => {
    const { system, settle } = world();
    const received: unknown[] = [];
    const sum: ActorRef<{ type: 'add'; n: number }> = system.spawn(
      fromMachine(fromTransition((total: number, event: { type: 'add'; n: number }) => total + event.n, 0)),
      { name: 'sum' },
    );
    const callback = system.spawn(fromMachine(fromCallback<{ type: 'ping' }>(({ receive }) => receive((event) => received.push(event)))));
    sum.tell({ type: 'add', n: 4 });
    callback.tell({ type: 'ping' });
    await settle();
    expect(system.status('/sum')?.snapshot).toMatchObject({ context: 4, status: 'active' });
    expect(received).toEqual([{ type: 'ping' }]);
  });
});
