// Where an actor's words and failures go: the log of the system, its failure listener, or a warning of the process.
//
// Invariant: L1  A failure is never nowhere: with neither a listener nor a log it is a process warning. It is never thrown on.

import type { ActorRef } from './actor-ref.ts';

/** Where an actor's words go. */
export interface Log {
  debug(...args: unknown[]): void;
  info(...args: unknown[]): void;
  warn(...args: unknown[]): void;
  error(...args: unknown[]): void;
}

/** A log that can name who speaks, as pino's. */
export interface ParentLog extends Log {
  child?(fields: { actor: string }): Log;
}

/** What an actor did when it failed. */
export type FailurePhase = 'start' | 'receive' | 'stopping';
export type FailureListener = (ref: ActorRef<never>, error: unknown, phase: FailurePhase) => void;

const DID: Record<FailurePhase, string> = { start: 'failed to start', receive: 'failed', stopping: 'failed while stopping' };

/** Without a log only what somebody must see is shown. */
const warnings: Log = {
  debug() {},
  info() {},
  warn: (...args) => warn(args.map(text).join(' ')),
  error: (...args) => warn(args.map(text).join(' ')),
};

export class Reporter {
  readonly #log: ParentLog | undefined;
  readonly #onFailure: FailureListener | undefined;

  constructor(log: ParentLog | undefined, onFailure: FailureListener | undefined) {
    this.#log = log;
    this.#onFailure = onFailure;
  }

  logOf(path: string): Log {
    if (this.#log === undefined) return warnings;
    return this.#log.child === undefined ? this.#log : this.#log.child({ actor: path });
  }

  /** The end of an incarnation by an Error, a failed start, an error of `stopping`. */
  failure(ref: ActorRef<never>, error: unknown, phase: FailurePhase): void {
    if (this.#onFailure !== undefined) {
      try {
        this.#onFailure(ref, error, phase);
      } catch (thrown) {
        this.logged(`onFailure threw for ${ref.path}`, thrown);
      }
    }
    if (this.#log !== undefined) this.#written(this.#log, `actor ${ref.path} ${DID[phase]}`, error);
    else if (this.#onFailure === undefined) warn(`actor ${ref.path} ${DID[phase]}: ${text(error)}`);
  }

  /** An error that ends nothing. */
  logged(what: string, error: unknown): void {
    if (this.#log !== undefined) this.#written(this.#log, what, error);
    else warn(`${what}: ${text(error)}`);
  }

  /** A log that throws must not take the actor, or the process, with it. */
  #written(log: ParentLog, what: string, error: unknown): void {
    try {
      log.error(what, error);
    } catch (thrown) {
      warn(`${what}: ${text(error)} (and the log threw: ${text(thrown)})`);
    }
  }
}

function warn(message: string): void {
  process.emitWarning(message, 'ActorWarning');
}

function text(value: unknown): string {
  if (value instanceof Error) return value.stack ?? value.message;
  return typeof value === 'string' ? value : (safeJson(value) ?? String(value));
}

function safeJson(value: unknown): string | undefined {
  try {
    return JSON.stringify(value);
  } catch {
    return undefined; // cycles and bigints: the caller falls back to String(), which always has an answer
  }
}
