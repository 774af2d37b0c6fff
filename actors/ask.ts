// Asking: a message with an address for its answer, and the time one waits for it.
//
// Who owns what: `Asks` owns every open ask of a system. An ask is over by its answer, its time, or the system's stop,
// whichever is first; an answer after that is a dead letter with reason `ask-over`.

import type { ActorRef } from './actor-ref.ts';
import type { Clock } from './clock.ts';
import type { DeadLetters } from './dead-letters.ts';
import { ActorError } from './errors.ts';

export const ASK_TIMEOUT_MS = 5000;

export interface AskOptions {
  timeout?: number;
}

interface AskTarget {
  readonly accepting: boolean;
  tell(message: unknown): void;
}

interface Answering {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

/** The address an answer goes to; the first answer counts. */
class ReplyRef implements ActorRef<unknown> {
  readonly path: string;
  readonly #asks: Asks;

  constructor(path: string, asks: Asks) {
    this.path = path;
    this.#asks = asks;
  }

  tell(message: unknown): void {
    this.#asks.answer(this, message);
  }

  ask<R>(make: (replyTo: ActorRef<R>) => unknown, options?: AskOptions): Promise<R> {
    return this.#asks.ask({ accepting: this.#asks.isOpen(this), tell: (message) => this.tell(message) }, this.path, make, options);
  }
}

export class Asks {
  readonly #clock: Clock;
  readonly #deadLetters: DeadLetters;
  readonly #open = new Map<ReplyRef, Answering & { timer: unknown }>();
  #count = 0;
  #stopped = false;

  constructor(clock: Clock, deadLetters: DeadLetters) {
    this.#clock = clock;
    this.#deadLetters = deadLetters;
  }

  ask<R>(target: AskTarget, path: string, make: (replyTo: ActorRef<R>) => unknown, options: AskOptions = {}): Promise<R> {
    const timeout = options.timeout ?? ASK_TIMEOUT_MS;
    return new Promise<unknown>((resolve, reject) => {
      if (typeof timeout !== 'number' || !(timeout >= 0)) {
        throw new ActorError('ERR_OPTIONS_INVALID', `ask of ${path}: timeout must be milliseconds from 0, got ${String(timeout)}.`);
      }
      const replyTo = new ReplyRef(`/$ask/${++this.#count}`, this);
      const message = make(replyTo);
      if (!target.accepting) {
        target.tell(message);
        throw this.#stopped && !isDead(target)
          ? systemStopped(path)
          : new ActorError('ERR_ACTOR_STOPPED', `${path} has ended and answers no more; find or start the actor that took its place.`);
      }
      const expire = () => {
        this.#open.delete(replyTo);
        reject(new ActorError('ERR_ASK_TIMEOUT', `${path} did not answer within ${timeout} ms; ask again, or give \`timeout\` more.`));
      };
      const timer = timeout === Number.POSITIVE_INFINITY ? undefined : this.#clock.setTimeout(expire, timeout);
      this.#open.set(replyTo, { resolve, reject, timer });
      target.tell(message);
    }) as Promise<R>;
  }

  isOpen(ref: ReplyRef): boolean {
    return this.#open.has(ref);
  }

  answer(ref: ReplyRef, message: unknown): void {
    const asked = this.#open.get(ref);
    if (asked === undefined) {
      this.#deadLetters.add({ message, to: ref, reason: 'ask-over' });
      return;
    }
    this.#open.delete(ref);
    this.#clock.clearTimeout(asked.timer);
    asked.resolve(message);
  }

  /** The system stops: every open ask is over. */
  stop(): void {
    this.#stopped = true;
    const open = [...this.#open];
    this.#open.clear();
    for (const [ref, asked] of open) {
      this.#clock.clearTimeout(asked.timer);
      asked.reject(systemStopped(ref.path));
    }
  }
}

function isDead(target: AskTarget): boolean {
  return 'ended' in target && target.ended !== undefined;
}

function systemStopped(path: string): ActorError {
  return new ActorError('ERR_SYSTEM_STOPPED', `The actor system stops: ${path} is over. Ask before stop(), or handle this as the end.`);
}
