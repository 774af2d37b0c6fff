// Behaviours as users see them: what a definition is given, what it gives back, and what may be said when one is started.

import type { ActorRef } from './actor-ref.ts';
import type { Clock } from './clock.ts';
import type { ExitReason } from './exit-reason.ts';
import type { Log } from './log.ts';
import type { Inspection } from './tree.ts';

/** How an actor behaves: what `defineActor`, `supervisor` and `fromMachine` give, and `spawn` takes. */
export interface Behaviour<in M = never> {
  /** Carries the message type; never called. */
  readonly accepts?: (message: M) => void;
}

/** How an actor is started, and what its parent does when it ends. */
export interface SpawnOptions {
  /** Unique among living siblings, without `/`; the runtime makes one where none is given. */
  name?: string;
  /** Whether the parent starts it again when it ends by itself; default `temporary`: never. */
  restart?: 'permanent' | 'transient' | 'temporary';
  /**
   * Milliseconds its whole end may take, children included; 5,000 by default, for a supervisor `infinity`.
   * `brutal`: killed when it is stopped, without being asked; an end of its own has 5,000.
   */
  shutdown?: number | 'infinity' | 'brutal';
}

/** What an actor may do. It is of one incarnation: what is left of it after a restart does nothing. */
export interface ActorContext<M> {
  readonly self: ActorRef<M>;
  /** Undefined for an actor that the system itself started. */
  readonly parent: ActorRef<never> | undefined;
  /** In start order. */
  readonly children: readonly ActorRef<never>[];
  readonly clock: Clock;
  readonly log: Log;
  /** Starts a child; its definition has run when this returns. A start that fails does not throw: the ref is dead already. */
  spawn<C>(behaviour: Behaviour<C>, options?: SpawnOptions): ActorRef<C>;
  /** Stops a child for good; throws ERR_NOT_A_CHILD for any other ref. */
  stop(ref: ActorRef<never>): void;
  /** One `onSignal.terminated` when that actor ends for good, or at once when it has. */
  watch(ref: ActorRef<never>): void;
  unwatch(ref: ActorRef<never>): void;
  /** Delivers a message to itself after so many milliseconds; the returned function cancels it, also when it waits in the mailbox already. */
  after(ms: number, message: M): () => void;
  /** Ends this actor, with `normal` by default. Returns: the running handler goes on to its end, nothing is received after it. */
  exit(reason?: ExitReason): void;
  /** Marks work as available: `work` will be called. Cheap and idempotent, may be called at any time and from anywhere; nothing after the end. */
  ready(): void;
}

/** What an actor does; given anew by its definition at every start. What a handler throws ends the incarnation. */
export interface ActorHandlers<M> {
  /** One message. The next one waits for a promise it returns; control mail does not. */
  receive(message: M): void | Promise<void>;
  /** A watched actor has ended for good; stands behind everything it told this one before. */
  onSignal?: { terminated?(ref: ActorRef<never>, reason: ExitReason): void };
  /** Once at the end of the incarnation, after its children have stopped; not when it was killed or its start failed. */
  stopping?(reason: ExitReason): void | Promise<void>;
  /**
   * The default action of the mailbox: processes what `ctx.ready()` announced, until about `deadline` (milliseconds of
   * `performance.now()`). Must get one unit done even when the deadline is over already, which under `testSystem` it always is.
   * Returns true when more is ready at once, false to sleep until `ready()`. Called after control mail and a bounded batch of messages;
   * not while suspended, while a receive promise is pending, or after the end. An error ends the actor like one of receive.
   */
  work?(deadline: number): boolean;
  /** What the actor says of itself in `tree()` and `status()`. Read only, at any time. */
  inspect?(): Inspection;
}
