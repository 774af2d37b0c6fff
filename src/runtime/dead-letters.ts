// Dead letters: records that failed under `skip`, and undecodable ones, with their error. The newest 1,000 of an operator are kept in the snapshot.

import type { DeadLetter, Key } from '../graph/job.ts';
import type { OperatorSnapshot } from './snapshot.ts';

const KEPT = 1000;

export class DeadLetters {
  readonly #kept = new Map<string, DeadLetter[]>();
  readonly #dropped = new Map<string, number>();

  /** Of an operator whose letters nobody consumes as a stream. */
  keep(letter: DeadLetter): void {
    const kept = this.#kept.get(letter.uid) ?? [];
    this.#kept.set(letter.uid, kept);
    kept.push(letter);
    if (kept.length > KEPT) {
      kept.shift();
      this.#dropped.set(letter.uid, (this.#dropped.get(letter.uid) ?? 0) + 1);
    }
  }

  restore(uid: string, snapshot: OperatorSnapshot): void {
    if (snapshot.deadLetters !== undefined) this.#kept.set(uid, [...snapshot.deadLetters]);
    if (snapshot.deadLettersDropped !== undefined) this.#dropped.set(uid, snapshot.deadLettersDropped);
  }

  snapshot(uid: string): OperatorSnapshot | undefined {
    const kept = this.#kept.get(uid);
    return kept === undefined ? undefined : { deadLetters: [...kept], deadLettersDropped: this.#dropped.get(uid) ?? 0 };
  }
}

/** The snapshot with letters that are newer than its own. */
export function withLetters(snapshot: OperatorSnapshot, newer: readonly DeadLetter[]): OperatorSnapshot {
  const all = [...(snapshot.deadLetters ?? []), ...newer];
  const deadLetters = all.slice(-KEPT);
  return { ...snapshot, deadLetters, deadLettersDropped: (snapshot.deadLettersDropped ?? 0) + all.length - deadLetters.length };
}

export function deadLetter(
  uid: string,
  record: unknown,
  key: Key | undefined,
  timestamp: number,
  error: unknown,
  at: number,
  checkpoint: number | undefined,
): DeadLetter {
  const described =
    error instanceof Error
      ? { name: error.name, message: error.message, ...codeOf(error), ...(error.stack === undefined ? {} : { stack: error.stack }) }
      : { name: 'Error', message: String(error) };
  return { uid, record, key, timestamp, at, error: described, checkpoint };
}

function codeOf(error: Error): { code?: string } {
  const { code } = error as { code?: unknown };
  return typeof code === 'string' ? { code } : {};
}
