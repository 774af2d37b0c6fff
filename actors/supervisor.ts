// Supervisors: the behaviour, and the functions that talk to one.

import type { ActorRef } from './actor-ref.ts';
import type { Behaviour } from './behaviour.ts';
import { Cell } from './cell.ts';
import { type ChildSpec, checkFlags, type SupervisorOptions } from './child-spec.ts';
import { Definition } from './definition.ts';
import { ActorError } from './errors.ts';
import { LocalRef } from './ref.ts';
import { type Child, type ChildCount, SupervisorRules } from './supervisor-rules.ts';

/** What a supervisor takes: nothing that could be told; only the functions of this module talk to it. */
export interface Supervising {
  readonly supervises: true;
}

/** The ref of an actor that was started from `supervisor()`. */
export type Supervisor = ActorRef<Supervising>;

/**
 * An actor that starts, watches, restarts and stops its children by their specs, with the rules of OTP's supervisor.
 *
 * @throws ERR_SUPERVISOR_INVALID, ERR_CHILD_SPEC_INVALID; ERR_CHILD_START_FAILED is the reason of a supervisor whose child does not start.
 * @example
 * const divide = defineActor<{ by: number; replyTo: ActorRef<number> }>(() => ({
 *   receive({ by, replyTo }) {
 *     if (by === 0) throw new RangeError('by zero');
 *     replyTo.tell(100 / by);
 *   },
 * }));
 * const system = createSystem({ onFailure: () => {} });
 * const top = system.spawn(supervisor({ strategy: 'one-for-one', children: [{ id: 'divide', start: divide }] }), { name: 'top' });
 * const ref = await childOf(top, 'divide', divide);
 * ref.ask<number>((replyTo) => ({ by: 0, replyTo })).catch(() => {}); // fails, and is started again
 * assert.equal(await ref.ask<number>((replyTo) => ({ by: 4, replyTo })), 25);
 * assert.equal(system.status('/top/divide')?.restarts, 1);
 * await system.stop();
 */
export function supervisor(options: SupervisorOptions): Behaviour<Supervising> {
  const flags = checkFlags(options);
  const definition = new Definition(
    'supervisor',
    (context) => ({ receive: (message) => context.log.warn(`supervisor ${context.self.path} was told what no supervisor takes`, message) }),
    (host) => new SupervisorRules(host, flags),
  );
  return definition;
}

/**
 * The children of a supervisor, in start order; those that are stopped too, as long as their spec is kept.
 *
 * @throws ERR_NOT_A_SUPERVISOR, ERR_ACTOR_STOPPED
 * @example
 * const idle = defineActor(() => ({ receive() {} }));
 * const system = createSystem();
 * const top = system.spawn(supervisor({ strategy: 'one-for-one', children: [{ id: 'a', start: idle }, { id: 'b', start: idle }] }));
 * assert.deepEqual((await whichChildren(top)).map(({ id, state }) => `${id} ${state}`), ['a running', 'b running']);
 * await system.stop();
 */
export function whichChildren(supervisor: Supervisor): Promise<Child[]> {
  return asked(supervisor, (rules) => rules.which());
}

/**
 * How many children a supervisor has: specs, and of them those with a living actor, supervisors and workers.
 *
 * @throws ERR_NOT_A_SUPERVISOR, ERR_ACTOR_STOPPED
 * @example
 * const idle = defineActor(() => ({ receive() {} }));
 * const system = createSystem();
 * const top = system.spawn(supervisor({ strategy: 'one-for-one', children: [{ id: 'a', start: idle }] }));
 * assert.deepEqual(await countChildren(top), { specs: 1, active: 1, supervisors: 0, workers: 1 });
 * await system.stop();
 */
export function countChildren(supervisor: Supervisor): Promise<ChildCount> {
  return asked(supervisor, (rules) => rules.count());
}

/**
 * Adds a child behind the others and starts it. One that does not start leaves no spec.
 *
 * @throws ERR_CHILD_SPEC_INVALID, ERR_CHILD_ALREADY_STARTED, ERR_CHILD_ALREADY_PRESENT, ERR_CHILD_START_FAILED, ERR_NOT_A_SUPERVISOR, ERR_ACTOR_STOPPED
 * @example
 * const idle = defineActor(() => ({ receive() {} }));
 * const system = createSystem();
 * const top = system.spawn(supervisor({ strategy: 'one-for-one', children: [] }), { name: 'top' });
 * const ref = await startChild(top, { id: 'later', start: idle });
 * assert.equal(ref.path, '/top/later');
 * await system.stop();
 */
export function startChild<M>(supervisor: Supervisor, spec: ChildSpec<M>): Promise<ActorRef<M>> {
  // The ref is of what the spec starts, so it takes what that takes.
  return asked(supervisor, (rules) => rules.startChild(spec) as ActorRef<M>);
}

/**
 * Stops a child, and resolves when it has ended; its spec stays, unless it is temporary.
 *
 * @throws ERR_CHILD_NOT_FOUND, ERR_NOT_A_SUPERVISOR, ERR_ACTOR_STOPPED
 * @example
 * const idle = defineActor(() => ({ receive() {} }));
 * const system = createSystem();
 * const top = system.spawn(supervisor({ strategy: 'one-for-one', children: [{ id: 'a', start: idle }] }));
 * await terminateChild(top, 'a');
 * assert.equal((await whichChildren(top))[0]?.state, 'stopped');
 * await system.stop();
 */
export function terminateChild(supervisor: Supervisor, id: string): Promise<void> {
  return request<void>(supervisor, (rules, resolve, refuse) => rules.terminateChild(id, () => resolve(), refuse));
}

/**
 * Starts a child that is stopped; its ref is a new one.
 *
 * @throws ERR_CHILD_NOT_FOUND, ERR_CHILD_RUNNING, ERR_CHILD_RESTARTING, ERR_CHILD_START_FAILED, ERR_NOT_A_SUPERVISOR, ERR_ACTOR_STOPPED
 * @example
 * const idle = defineActor(() => ({ receive() {} }));
 * const system = createSystem();
 * const top = system.spawn(supervisor({ strategy: 'one-for-one', children: [{ id: 'a', start: idle }] }));
 * await terminateChild(top, 'a');
 * await restartChild(top, 'a');
 * assert.equal((await whichChildren(top))[0]?.state, 'running');
 * await system.stop();
 */
export function restartChild(supervisor: Supervisor, id: string): Promise<ActorRef<never>> {
  return asked(supervisor, (rules) => rules.restartChild(id));
}

/**
 * Forgets the spec of a child that is stopped.
 *
 * @throws ERR_CHILD_NOT_FOUND, ERR_CHILD_RUNNING, ERR_CHILD_RESTARTING, ERR_NOT_A_SUPERVISOR, ERR_ACTOR_STOPPED
 * @example
 * const idle = defineActor(() => ({ receive() {} }));
 * const system = createSystem();
 * const top = system.spawn(supervisor({ strategy: 'one-for-one', children: [{ id: 'a', start: idle }] }));
 * await terminateChild(top, 'a');
 * await deleteChild(top, 'a');
 * assert.deepEqual(await whichChildren(top), []);
 * await system.stop();
 */
export function deleteChild(supervisor: Supervisor, id: string): Promise<void> {
  return asked(supervisor, (rules) => rules.deleteChild(id));
}

/**
 * The ref of a child; it stays valid across restarts of that child.
 *
 * @param behaviour that of its spec: it types the ref.
 * @throws ERR_CHILD_NOT_FOUND, ERR_BEHAVIOUR_INVALID, ERR_NOT_A_SUPERVISOR; ERR_ACTOR_STOPPED where the child, or the supervisor, is stopped
 * @example
 * const echo = defineActor<ActorRef<string>>(() => ({ receive: (replyTo) => replyTo.tell('here') }));
 * const system = createSystem();
 * const top = system.spawn(supervisor({ strategy: 'one-for-one', children: [{ id: 'echo', start: echo }] }));
 * const ref = await childOf(top, 'echo', echo);
 * assert.equal(await ref.ask<string>((replyTo) => replyTo), 'here');
 * await system.stop();
 */
export function childOf<M>(supervisor: Supervisor, id: string, behaviour: Behaviour<M>): Promise<ActorRef<M>> {
  if (!(behaviour instanceof Definition)) {
    return Promise.reject(new ActorError('ERR_BEHAVIOUR_INVALID', 'childOf takes the behaviour that the spec of the child starts: it types the ref.'));
  }
  return asked(supervisor, (rules) => rules.refOf(id) as ActorRef<M>);
}

function asked<R>(supervisor: Supervisor, answer: (rules: SupervisorRules) => R): Promise<R> {
  return request<R>(supervisor, (rules, resolve) => resolve(answer(rules)));
}

function request<R>(supervisor: Supervisor, serve: (rules: SupervisorRules, resolve: (answer: R) => void, refuse: () => void) => void): Promise<R> {
  return new Promise<R>((resolve, reject) => {
    const cell = LocalRef.addresseeOf(supervisor);
    if (!(cell instanceof Cell) || cell.definition.guard === undefined) {
      const path = String((supervisor as { path?: unknown } | undefined)?.path);
      throw new ActorError('ERR_NOT_A_SUPERVISOR', `${path} is no supervisor; give the ref of an actor started from supervisor().`);
    }
    const refuse = () => reject(new ActorError('ERR_ACTOR_STOPPED', `Supervisor ${cell.path} has ended; its children ended with it.`));
    cell.ask({
      run(guardian) {
        try {
          serve(guardian as SupervisorRules, resolve, refuse);
        } catch (error) {
          reject(error);
        }
      },
      refuse,
    });
  });
}
