// How many instances: a number, or a range within which a cluster chooses. Pure.

import { MillraceError } from '../errors.ts';
import type { RunOptions } from './job.ts';

export interface Range {
  readonly min: number;
  readonly max: number;
}

/** 1 by default; a number is a range of one. Throws OPTION_INVALID. */
export function rangeOf(parallelism: RunOptions['parallelism']): Range {
  if (typeof parallelism !== 'object') return { min: parallelism ?? 1, max: parallelism ?? 1 };
  const { min, max } = parallelism;
  if (!Number.isInteger(min) || !Number.isInteger(max) || min < 1 || max < min)
    throw new MillraceError('OPTION_INVALID', `parallelism { min: ${min}, max: ${max} }: both are whole numbers above 0, and max is not below min.`);
  return { min, max };
}

/** Where nobody knows of room for more. */
export function leastOf(parallelism: RunOptions['parallelism']): number {
  return rangeOf(parallelism).min;
}
