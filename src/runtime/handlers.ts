// Handlers are synchronous (protocols 10): one that returns a promise would go on under another record's key.

import { MillraceError } from '../errors.ts';

export function isThenable(result: unknown): result is PromiseLike<unknown> {
  return typeof result === 'object' && result !== null && typeof (result as { then?: unknown }).then === 'function';
}

/** Throws HANDLER_IS_ASYNC where `result` is a promise. Its own rejection is swallowed: the record has failed already, with this error. */
export function rejectThenable(result: unknown, uid: string): void {
  if (!isThenable(result)) return;
  Promise.resolve(result).catch(() => {});
  throw new MillraceError('HANDLER_IS_ASYNC', `A function of '${uid}' returned a promise.`, {
    uid,
    todo: 'Handlers are synchronous; do asynchronous work in asyncMap, in a source or in a sink.',
  });
}
