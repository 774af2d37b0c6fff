// Dead letters: messages that reached nobody, counted and the newest kept.
//
// Timers of a dead actor, notices of an end and control mail are never dead letters: nobody wrote them.

import type { ActorRef } from './actor-ref.ts';

/** A message that reached nobody. */
export interface DeadLetter {
  readonly message: unknown;
  readonly to: ActorRef<never>;
  /** `stopped`: its actor had ended or was stopped; `ask-over`: an answer to a question that is over. */
  readonly reason: 'stopped' | 'ask-over';
}

/** What `deadLetters()` gives: all since the system began, counted. */
export interface DeadLetterReport {
  readonly count: number;
  readonly byReason: Record<string, number>;
  /** The newest 100, oldest first. */
  readonly last: readonly DeadLetter[];
}

const KEPT = 100;

export class DeadLetters {
  readonly #listener: ((letter: DeadLetter) => void) | undefined;
  readonly #onListenerError: (error: unknown) => void;
  #count = 0;
  readonly #byReason: Record<string, number> = {};
  #last: DeadLetter[] = [];

  constructor(listener: ((letter: DeadLetter) => void) | undefined, onListenerError: (error: unknown) => void) {
    this.#listener = listener;
    this.#onListenerError = onListenerError;
  }

  add(letter: DeadLetter): void {
    this.#count++;
    this.#byReason[letter.reason] = (this.#byReason[letter.reason] ?? 0) + 1;
    this.#last.push(letter);
    // Trimmed in pieces: a flood of letters must not move a hundred of them each time.
    if (this.#last.length >= 2 * KEPT) this.#last = this.#last.slice(-KEPT);
    if (this.#listener === undefined) return;
    try {
      this.#listener(letter);
    } catch (error) {
      this.#onListenerError(error);
    }
  }

  report(): DeadLetterReport {
    return { count: this.#count, byReason: { ...this.#byReason }, last: this.#last.slice(-KEPT) };
  }
}
