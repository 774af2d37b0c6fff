import { expect, test } from 'vitest';
import { createActor } from 'xstate';
import { cellLifecycle, childLifecycle, createSystem, defineActor, type TraceEvent } from '../../actors/index.ts';
import { moveCell, moveChild } from '../../actors/lifecycle.ts';

test.each([
  ['cellLifecycle', cellLifecycle, moveCell],
  ['childLifecycle', childLifecycle, moveChild],
] as const)('the moves of the runtime are the moves of the machine %s', (_, machine, move) => {
  for (const [from, state] of Object.entries(machine.config.states ?? {})) {
    const allowed = (state as { on?: Record<string, string> }).on ?? {};
    for (const [event, to] of Object.entries(allowed)) {
      expect(move(from as never, event as never)).toBe(to);
      const actor = createActor(machine, { snapshot: machine.resolveState({ value: from, context: {} } as never) });
      actor.start();
      actor.send({ type: event } as never);
      expect(actor.getSnapshot().value).toBe(to);
    }
    expect(() => move(from as never, 'no such event' as never)).toThrow('Broken lifecycle');
  }
});

test('an actor goes through the states of its statechart', async () => {
  const system = createSystem({ onFailure: () => {} });
  const states: string[] = [];
  const ref = system.spawn(
    defineActor<string>((ctx) => ({ receive: () => ctx.exit(new Error('x')) })),
    { restart: 'permanent' },
  );
  system.trace(ref.path, (event: TraceEvent) => void (event.type === 'state' && states.push(event.state)));
  ref.tell('end');
  await new Promise((resolve) => setImmediate(resolve));
  expect(states).toEqual(['stopping', 'restarting', 'starting', 'running']);
  await system.stop();
  expect(states.slice(4)).toEqual(['stopping', 'stopped']);
});
