// XState actor logic as an actor: a machine with a mailbox, a place in the tree and a supervisor.
//
// Who owns what: XState owns the snapshot; this actor owns the life. Delays of the machine are timers of the actor, so they
// run in its turns, on the system's clock, and end with it. Errors are observed, so none reaches XState's global handler.

import { type AnyActor, type AnyActorLogic, createActor, type EventFromLogic } from 'xstate';
import type { ActorContext, Behaviour } from './behaviour.ts';
import { Definition } from './definition.ts';
import { asError } from './errors.ts';

/** A delay of the machine that is due. */
class Due {
  readonly run: () => void;

  constructor(run: () => void) {
    this.run = run;
  }
}

/**
 * Any XState v5 actor logic as a behaviour: events are its messages, done exits `normal`, an error exits with it, every start begins anew.
 *
 * @param options `input` for the logic; none by default.
 * @example
 * import { createMachine } from 'xstate';
 *
 * const light = createMachine({ initial: 'off', states: { off: { on: { flip: 'on' } }, on: { on: { flip: 'off' } } } });
 * const t = testSystem();
 * t.system.spawn(fromMachine(light), { name: 'light' }).tell({ type: 'flip' });
 * await t.settle();
 * assert.deepEqual(t.system.status('/light')?.snapshot, { value: 'on', context: {}, status: 'active' });
 */
export function fromMachine<L extends AnyActorLogic>(logic: L, options: { input?: unknown } = {}): Behaviour<EventFromLogic<L>> {
  const definition = new Definition('machine', (context) => {
    const machine = createActor(logic as AnyActorLogic, {
      input: options.input,
      clock: machineClock(context),
      logger: (...args: unknown[]) => context.log.info(...args),
    });
    // Subscribed before the start: an initial state may be final or in error already.
    machine.subscribe({
      complete: () => context.exit('normal'),
      error: (error: unknown) => context.exit(asError(error)),
    });
    machine.start();
    return {
      receive(message) {
        if (message instanceof Due) message.run();
        else machine.send(message as never);
      },
      stopping() {
        machine.stop();
      },
      inspect: () => ({ snapshot: snapshotOf(machine) }),
    };
  });
  return definition;
}

function machineClock(context: ActorContext<unknown>) {
  return {
    setTimeout: (fn: () => void, ms: number) => context.after(Math.max(0, ms), new Due(fn)),
    clearTimeout: (cancel: unknown) => (cancel as (() => void) | undefined)?.(),
  };
}

function snapshotOf(machine: AnyActor): { value: unknown; context: unknown; status: unknown } {
  const snapshot = machine.getSnapshot() as { value?: unknown; context?: unknown; status: unknown };
  return { value: snapshot.value, context: snapshot.context, status: snapshot.status };
}
