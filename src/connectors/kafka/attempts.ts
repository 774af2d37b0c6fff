// Trying again, until it works, cannot work, or has taken too long.

import { pause } from '../pause.ts';
import type { Brokers } from './brokers.ts';
import { closed, KafkaError } from './errors.ts';

const FIRST_PAUSE_MS = 10;
const LONGEST_PAUSE_MS = 1000;

/**
 * Calls `attempt` until it resolves; between two calls `renew` does what the error asks for (fresh metadata, another coordinator). Throws the last error when it
 * is not transient, or when `timeoutMs` are over.
 */
export async function persistently<T>(
  brokers: Brokers,
  timeoutMs: number,
  attempt: (tries: number) => Promise<T>,
  renew: (error: KafkaError) => Promise<void> | void,
): Promise<T> {
  const until = Date.now() + timeoutMs;
  for (let tries = 0; ; tries++) {
    try {
      return await attempt(tries);
    } catch (error) {
      if (brokers.closed) throw closed();
      if (!(error instanceof KafkaError) || error.again === undefined) throw error;
      const pauseMs = pauseBefore(tries);
      if (Date.now() + pauseMs > until) throw error;
      await pause(pauseMs, brokers.signal);
      await renew(error);
    }
  }
}

/** Doubling, with a fifth of chance, so that those who failed together do not come back together. */
export function pauseBefore(tries: number): number {
  return Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** tries) * (0.8 + Math.random() * 0.4);
}
