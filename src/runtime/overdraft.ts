// How much one unit may produce before it fails: a record that flattens into more than 64 MiB would never fit (protocols 15).
//
// Inside a unit nothing is handed over, so builders and sinks grow. Looked at each OVERDRAFT_STEP values, which a unit of ordinary size never reaches.

import { encode } from '../../state-backends/index.ts';
import { MillraceError } from '../errors.ts';

export const OVERDRAFT_STEP = 16_384;
const OVERDRAFT_BYTES = 64 << 20;
const SAMPLES = 32;

/** Throws RECORD_TOO_LARGE where the first `count` values come to more than the limit, judged by a sample of them. */
export function limitOverdraft(values: readonly unknown[], count: number): void {
  let bytes = 0;
  for (let i = 0; i < SAMPLES; i++) bytes += encode(values[Math.floor((i * count) / SAMPLES)]).byteLength;
  const estimate = (bytes / SAMPLES) * count;
  if (estimate <= OVERDRAFT_BYTES) return;
  throw new MillraceError('RECORD_TOO_LARGE', `One record became ${count} results of about ${Math.round(estimate / (1 << 20))} MiB.`, {
    todo: 'A record and its timers may produce 64 MiB at most; split it, or keep large values elsewhere and pass references.',
  });
}
