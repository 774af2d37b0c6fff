// Why an actor ended, and what that means to whoever decides on a restart.

import { asError } from './errors.ts';

/** `normal` and `shutdown` are wanted ends; `{ shutdown }` is one that says more; an Error is a failure. */
export type ExitReason = 'normal' | 'shutdown' | { shutdown: unknown } | Error;

/** OTP's rule for transient children: normal, shutdown and {shutdown, _} are wanted, everything else calls for a restart. */
export function isAbnormal(reason: ExitReason): boolean {
  return reason instanceof Error;
}

/** Programs without types may exit with anything; what is no reason becomes an Error that carries it. */
export function asReason(reason: unknown): ExitReason {
  if (reason === undefined) return 'normal';
  if (reason === 'normal' || reason === 'shutdown' || reason instanceof Error) return reason;
  if (typeof reason === 'object' && reason !== null && 'shutdown' in reason) return reason as { shutdown: unknown };
  return asError(reason);
}
