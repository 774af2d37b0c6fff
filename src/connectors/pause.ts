// Waiting inside of a connector: until a time is over, or the attempt ends.

import type { Io } from '../runtime/io.ts';

/** Resolves after `ms` milliseconds, or as soon as the signal aborts. */
export function pause(ms: number, signal: AbortSignal, io: Pick<Io, 'clock'>): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = (): void => {
      io.clock.clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = io.clock.setTimeout(done, ms);
    signal.addEventListener('abort', done);
  });
}
