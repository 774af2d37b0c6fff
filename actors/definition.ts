// Definitions: how the runtime keeps a behaviour.
//
// Who owns what: users write `(context) => handlers`, which runs at every start; the runtime keeps it in a Definition and calls the
// handlers. Nobody else can make a Behaviour: the class below is how the runtime knows its own.

import type { ActorContext, ActorHandlers, Behaviour } from './behaviour.ts';
import { ActorError } from './errors.ts';
import type { Guardian, GuardianHost } from './guardian.ts';

export type DefinitionKind = 'actor' | 'supervisor' | 'machine';
export type Handlers = ActorHandlers<unknown>;

export class Definition implements Behaviour<unknown> {
  declare readonly accepts?: (message: unknown) => void;
  readonly kind: DefinitionKind;
  readonly start: (context: ActorContext<unknown>) => Handlers;
  /** A supervisor's own way with its children; other actors restart theirs alone. */
  readonly guard: ((host: GuardianHost) => Guardian) | undefined;

  constructor(kind: DefinitionKind, start: (context: ActorContext<unknown>) => Handlers, guard?: (host: GuardianHost) => Guardian) {
    this.kind = kind;
    this.start = start;
    this.guard = guard;
  }
}

/**
 * An actor, defined by what it does at every start: a synchronous function that gives its handlers. A restart begins with a fresh `total`.
 *
 * @param start throwing in it is a start that failed.
 * @param options `kind` is shown in the tree, `actor` by default; `supervisor` has an unlimited shutdown time.
 * @throws ERR_BEHAVIOUR_INVALID, ERR_OPTIONS_INVALID; ERR_DEFINITION_ASYNC, ERR_DEFINITION_INVALID are reasons of a failed start.
 * @example
 * const counter = defineActor<{ add: number } | { total: ActorRef<number> }>(() => {
 *   let total = 0;
 *   return {
 *     receive(message) {
 *       if ('add' in message) total += message.add;
 *       else message.total.tell(total);
 *     },
 *   };
 * });
 * const system = createSystem();
 * const ref = system.spawn(counter);
 * ref.tell({ add: 2 });
 * assert.equal(await ref.ask<number>((total) => ({ total })), 2);
 * await system.stop();
 */
export function defineActor<M>(start: (context: ActorContext<M>) => ActorHandlers<M>, options: { kind?: 'actor' | 'supervisor' } = {}): Behaviour<M> {
  if (typeof start !== 'function') throw new ActorError('ERR_BEHAVIOUR_INVALID', 'defineActor takes a function from a context to handlers.');
  const kind = options.kind ?? 'actor';
  if (kind !== 'actor' && kind !== 'supervisor') {
    throw new ActorError('ERR_OPTIONS_INVALID', `defineActor: kind must be 'actor' or 'supervisor', got ${String(kind)}.`);
  }
  // The one place where the message type is let go: refs and behaviours carry it, cells handle messages of any type.
  return new Definition(kind, start as unknown as (context: ActorContext<unknown>) => Handlers);
}

export function definitionOf(behaviour: unknown): Definition {
  if (behaviour instanceof Definition) return behaviour;
  throw new ActorError('ERR_BEHAVIOUR_INVALID', 'Not a behaviour: give what defineActor, supervisor or fromMachine returned.');
}
