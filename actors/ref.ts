// What stands behind an address: LocalRef, and the Addressee only this runtime can reach.
//
// Who owns what: a ref keeps its path; everything else is behind the Addressee, which only this runtime can reach
// (`addresseeOf`). A ref stays valid across restarts of its actor and is dead once the actor has ended for good.

import type { ActorRef } from './actor-ref.ts';
import type { AskOptions, Asks } from './ask.ts';
import type { ExitReason } from './exit-reason.ts';

/** One incarnation that watches: it is told once, in its message lane. */
export interface Watcher {
  terminated(ref: ActorRef<never>, reason: ExitReason): void;
}

/** What stands behind a ref: the actor, as other actors of this runtime may reach it. */
export interface Addressee {
  readonly asks: Asks;
  /** False once messages are dead letters. */
  readonly accepting: boolean;
  readonly parent: Addressee | undefined;
  /** The reason of an actor that has ended for good. */
  readonly ended: ExitReason | undefined;
  tell(message: unknown): void;
  addWatcher(watcher: Watcher): void;
  removeWatcher(watcher: Watcher): void;
}

export class LocalRef implements ActorRef<unknown> {
  readonly path: string;
  readonly #addressee: Addressee;

  constructor(path: string, addressee: Addressee) {
    this.path = path;
    this.#addressee = addressee;
  }

  tell(message: unknown): void {
    this.#addressee.tell(message);
  }

  ask<R>(make: (replyTo: ActorRef<R>) => unknown, options?: AskOptions): Promise<R> {
    return this.#addressee.asks.ask(this.#addressee, this.path, make, options);
  }

  /** The actor behind a ref of this runtime; undefined for a reply address or somebody else's ref. */
  static addresseeOf(ref: unknown): Addressee | undefined {
    return typeof ref === 'object' && ref !== null && #addressee in ref ? ref.#addressee : undefined;
  }
}
