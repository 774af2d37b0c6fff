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

export type Supervisor = ActorRef<Supervising>;

/**
 * An actor that starts, watches, restarts and stops its children by their specs, with the rules of OTP's supervisor.
 *
 * @example
 * const root = supervisor({ strategy: 'one-for-one', children: [{ id: 'counter', start: counter }] });
 * const top = createSystem().spawn(root);
 * const ref = await childOf(top, 'counter', counter);
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

/** In start order. */
export function whichChildren(supervisor: Supervisor): Promise<Child[]> {
  return asked(supervisor, (rules) => rules.which());
}

export function countChildren(supervisor: Supervisor): Promise<ChildCount> {
  return asked(supervisor, (rules) => rules.count());
}

export function startChild<M>(supervisor: Supervisor, spec: ChildSpec<M>): Promise<ActorRef<M>> {
  // The ref is of what the spec starts, so it takes what that takes.
  return asked(supervisor, (rules) => rules.startChild(spec) as ActorRef<M>);
}

/** Stops a child; its spec stays, unless it is temporary. */
export function terminateChild(supervisor: Supervisor, id: string): Promise<void> {
  return request<void>(supervisor, (rules, resolve, refuse) => rules.terminateChild(id, () => resolve(), refuse));
}

/** Starts a child that is stopped; its ref is a new one. */
export function restartChild(supervisor: Supervisor, id: string): Promise<ActorRef<never>> {
  return asked(supervisor, (rules) => rules.restartChild(id));
}

/** Forgets the spec of a child that is stopped. */
export function deleteChild(supervisor: Supervisor, id: string): Promise<void> {
  return asked(supervisor, (rules) => rules.deleteChild(id));
}

/** The ref of a child, typed by the behaviour its spec starts; it stays valid across restarts of that child. */
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
