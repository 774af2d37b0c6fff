// What tests of random programs share: numbers from a seed, and how a seed and a number of rounds are asked for.
//
// A failure prints its seed; MILLRACE_SEED repeats from it, MILLRACE_ROUNDS asks for more rounds than there are in every run of the tests.

import { LONG } from './long.ts';

/** Small numbers from a seed (mulberry32): equal seeds give equal numbers. */
export class Random {
  #state: number;
  constructor(seed: number) {
    this.#state = seed >>> 0;
  }
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }
  below(n: number): number {
    return Math.floor(this.next() * n);
  }
  between(from: number, to: number): number {
    return from + this.below(to - from + 1);
  }
  /** True once in n times. */
  once(n: number): boolean {
    return this.below(n) === 0;
  }
  of<T>(items: readonly T[]): T {
    return items[this.below(items.length)]!;
  }
}

/** Checkpoints that wait for slow inputs, that do not, or that do for a while. The folder is of a simulated disk. */
export function checkpointsOf(random: Random): { directory: string; unaligned: boolean | { after: number } } {
  return { directory: 'checkpoints', unaligned: random.of([false, true, true, { after: random.between(0, 10) }]) };
}

/** Of the first round; those that follow count up from it. */
export const SEED = Number(process.env['MILLRACE_SEED'] ?? Math.floor(Math.random() * 2 ** 31));

/** How many rounds are run: what was asked for, or so many in long runs, and a third of them in others. */
export function rounds(inLong: number): number {
  return Number(process.env['MILLRACE_ROUNDS'] ?? (LONG ? inLong : Math.ceil(inLong / 3)));
}
