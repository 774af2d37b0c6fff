// Who was refused, in the log: once for each address and reason and minute, however often it tries.

import { type MillraceError, messageOf } from '../../errors.ts';
import type { Logger } from '../../graph/context.ts';

const QUIET_MS = 60_000;
/** Addresses that are remembered; strangers do not fill the memory. */
const KNOWN_MAX = 1000;

export class RefusalLog {
  readonly #log: Logger;
  readonly #now: () => number;
  readonly #known = new Map<string, { at: number; since: number }>();

  /** `now`: milliseconds of a clock that never goes back. */
  constructor(log: Logger, now: () => number = () => performance.now()) {
    this.#log = log;
    this.#now = now;
  }

  say(address: string, error: MillraceError): void {
    const now = this.#now();
    const key = `${address} ${error.sentence}`;
    const known = this.#known.get(key);
    if (known !== undefined && now - known.at < QUIET_MS) {
      known.since += 1;
      return;
    }
    // The oldest goes first: one that is said again becomes the newest.
    this.#known.delete(key);
    if (this.#known.size >= KNOWN_MAX) this.#known.delete(this.#known.keys().next().value!);
    this.#known.set(key, { at: now, since: 0 });
    this.#log.warn({ address, code: error.code, repeated: known?.since ?? 0 }, messageOf(error));
  }
}
