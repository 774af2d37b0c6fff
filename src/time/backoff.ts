// How long to wait before something is tried again: pure.

export interface Waits {
  /** Milliseconds before the first. */
  readonly initial: number;
  readonly max: number;
  readonly factor: number;
  /** The share by which a wait is shortened or lengthened at random. */
  readonly jitter: number;
}

/** What is meant where nothing is said. */
export const DEFAULT_WAITS: Waits = { initial: 100, max: 10_000, factor: 2, jitter: 0.1 };

/** Milliseconds before the `n`-th time something is tried again, from 1. `random` is in [0, 1). */
export function waitBefore(n: number, { initial, max, factor, jitter }: Waits, random: number): number {
  return Math.min(max, initial * factor ** (n - 1)) * (1 - jitter + 2 * jitter * random);
}
