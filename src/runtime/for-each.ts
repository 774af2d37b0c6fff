// `forEach` as a plain sink: its writer calls the function record by record, in order; a promise holds the next record back.

import type { Sink } from '../graph/sink.ts';

/** `failed` is told which record it was: the `index`-th of the writer. */
export function forEachSink(
  fn: (value: unknown) => void | Promise<void>,
  failed: (error: unknown, record: unknown, timestamp: number, index: number) => void,
): Sink<unknown> {
  let handed = 0;
  /** Goes on from record `from`, whose call is pending. */
  const rest = async (values: readonly unknown[], timestamps: readonly number[], first: number, from: number, pending: Promise<void>): Promise<void> => {
    let call: void | Promise<void> = pending;
    for (let i = from; i < values.length; i++) {
      try {
        if (i > from) call = fn(values[i]);
        await call;
      } catch (error) {
        failed(error, values[i], timestamps[i]!, first + i);
      }
    }
  };
  const write = (values: readonly unknown[], timestamps: readonly number[]): void | Promise<void> => {
    const first = handed;
    handed += values.length;
    for (let i = 0; i < values.length; i++) {
      try {
        const call = fn(values[i]);
        if (call !== undefined && typeof call.then === 'function') return rest(values, timestamps, first, i, call);
      } catch (error) {
        failed(error, values[i], timestamps[i]!, first + i);
      }
    }
  };
  return { open: async () => ({ write, async flush() {}, async close() {} }) };
}
