// ActorRef: the address of an actor, all that others know of it. It stays valid across restarts, and is dead once the actor has ended for good.

/** The address of an actor; valid across its restarts, dead once it has ended for good. */
export interface ActorRef<in M> {
  /** `/` and the names from below the system, joined by `/`. */
  readonly path: string;
  /** Puts a message into the actor's mailbox and returns; to an actor that has ended it is a dead letter. Never throws. */
  tell(message: M): void;
  /** Tells a message with an address for its answer; rejects with ERR_ASK_TIMEOUT after 5,000 ms, or as long as `timeout` says. */
  ask<R>(make: (replyTo: ActorRef<R>) => M, options?: { timeout?: number }): Promise<R>;
}
