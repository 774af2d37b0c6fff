// The context of one incarnation: what user code may do with its own actor.
//
// Who owns what: a context owns the timers and the watches of its incarnation and nothing else; `close()` ends both, at the
// beginning of the end. A context that is closed does nothing more: it may still be in the hands of an abandoned promise.

import type { ActorRef } from './actor-ref.ts';
import type { ActorContext, Behaviour, SpawnOptions } from './behaviour.ts';
import type { Clock } from './clock.ts';
import { ActorError } from './errors.ts';
import { asReason, type ExitReason } from './exit-reason.ts';
import type { Log } from './log.ts';
import { LaneEntry } from './mailbox.ts';
import { LocalRef, type Watcher } from './ref.ts';

/** What a context needs of its cell. */
export interface ContextHost {
  readonly ref: LocalRef;
  readonly parentRef: LocalRef | undefined;
  readonly childRefs: readonly LocalRef[];
  readonly clock: Clock;
  readonly log: Log;
  spawn(behaviour: Behaviour<never>, options: SpawnOptions | undefined, spawner: Context): LocalRef;
  stopChild(ref: ActorRef<never>): void;
  /** The first reason of an incarnation counts; the rest of the end is the cell's. */
  exitWith(reason: ExitReason): void;
  /** Work is available: flagged already means nothing to do. */
  markReady(): void;
  deliver(entry: LaneEntry): void;
  undeliver(entry: LaneEntry): void;
}

/** A message to itself that is due, or will be. */
export class TimerEntry extends LaneEntry {
  readonly kind = 'timer';
  readonly message: unknown;
  handle: unknown;
  queued = false;

  constructor(message: unknown) {
    super();
    this.message = message;
  }
}

/** The end of a watched actor. */
export class TerminatedEntry extends LaneEntry {
  readonly kind = 'terminated';
  readonly ref: ActorRef<never>;
  readonly reason: ExitReason;

  constructor(ref: ActorRef<never>, reason: ExitReason) {
    super();
    this.ref = ref;
    this.reason = reason;
  }
}

export class Context implements ActorContext<unknown>, Watcher {
  readonly self: LocalRef;
  readonly parent: LocalRef | undefined;
  readonly clock: Clock;
  readonly #host: ContextHost;
  readonly #timers = new Set<TimerEntry>();
  /** Watched refs, with the notice once it stands in the lane. */
  readonly #watched = new Map<ActorRef<never>, TerminatedEntry | undefined>();
  #closed = false;

  constructor(host: ContextHost) {
    this.#host = host;
    this.self = host.ref;
    this.parent = host.parentRef;
    this.clock = host.clock;
  }

  get children(): readonly ActorRef<never>[] {
    return this.#closed ? [] : this.#host.childRefs;
  }

  get log(): Log {
    return this.#host.log;
  }

  get closed(): boolean {
    return this.#closed;
  }

  spawn<C>(behaviour: Behaviour<C>, options?: SpawnOptions): ActorRef<C> {
    return this.#host.spawn(behaviour, options, this);
  }

  stop(ref: ActorRef<never>): void {
    this.#host.stopChild(ref);
  }

  watch(ref: ActorRef<never>): void {
    if (this.#closed || this.#watched.has(ref)) return;
    this.#watched.set(ref, undefined);
    const addressee = LocalRef.addresseeOf(ref);
    if (addressee === undefined) {
      const reason = new ActorError('ERR_ACTOR_UNKNOWN', `${ref.path} is no actor of this runtime: nothing can be known of its end.`);
      this.terminated(ref, reason);
    } else if (addressee.ended !== undefined) this.terminated(ref, addressee.ended);
    else addressee.addWatcher(this);
  }

  unwatch(ref: ActorRef<never>): void {
    if (!this.#watched.has(ref)) return;
    const notice = this.#watched.get(ref);
    this.#watched.delete(ref);
    if (notice === undefined) LocalRef.addresseeOf(ref)?.removeWatcher(this);
    else this.#host.undeliver(notice);
  }

  /** A watched actor has ended: the notice stands behind everything it told this one before. */
  terminated(ref: ActorRef<never>, reason: ExitReason): void {
    const notice = new TerminatedEntry(ref, reason);
    this.#watched.set(ref, notice);
    this.#host.deliver(notice);
  }

  after(ms: number, message: unknown): () => void {
    if (typeof ms !== 'number' || !(ms >= 0)) {
      throw new ActorError('ERR_OPTIONS_INVALID', `after(${String(ms)}): a delay is milliseconds from 0.`);
    }
    const timer = new TimerEntry(message);
    if (!this.#closed) this.#arm(timer, ms);
    return () => this.#cancel(timer);
  }

  exit(reason?: ExitReason): void {
    if (!this.#closed) this.#host.exitWith(asReason(reason));
  }

  ready(): void {
    if (!this.#closed) this.#host.markReady();
  }

  /** A timer or notice leaves the lane to be handled: it is over. */
  handled(entry: TimerEntry | TerminatedEntry): void {
    if (entry instanceof TimerEntry) this.#timers.delete(entry);
    else this.#watched.delete(entry.ref);
  }

  close(): void {
    this.#closed = true;
    for (const timer of this.#timers) {
      if (!timer.queued) this.clock.clearTimeout(timer.handle);
    }
    this.#timers.clear();
    for (const [ref, notice] of this.#watched) {
      if (notice === undefined) LocalRef.addresseeOf(ref)?.removeWatcher(this);
    }
    this.#watched.clear();
  }

  #arm(timer: TimerEntry, ms: number): void {
    this.#timers.add(timer);
    if (ms === 0) {
      this.#due(timer);
      return;
    }
    if (ms !== Number.POSITIVE_INFINITY) timer.handle = this.clock.setTimeout(() => this.#due(timer), ms);
  }

  #due(timer: TimerEntry): void {
    if (!this.#timers.has(timer)) return;
    timer.queued = true;
    this.#host.deliver(timer);
  }

  #cancel(timer: TimerEntry): void {
    if (!this.#timers.delete(timer)) return;
    if (timer.queued) this.#host.undeliver(timer);
    else this.clock.clearTimeout(timer.handle);
  }
}
