// `forEach` as a plain sink: its writer calls the function record by record, in order; a promise holds the next record back.

import type { Sink } from '../graph/sink.ts';

export function forEachSink(fn: (value: unknown) => void | Promise<void>, failed: (error: unknown, record: unknown, timestamp: number) => void): Sink<unknown> {
  /** Goes on from record `from`, whose call is pending. */
  const rest = async (values: readonly unknown[], timestamps: readonly number[], from: number, pending: Promise<void>): Promise<void> => {
    let call: void | Promise<void> = pending;
    for (let i = from; i < values.length; i++) {
      try {
        if (i > from) call = fn(values[i]);
        await call;
      } catch (error) {
        failed(error, values[i], timestamps[i]!);
      }
    }
  };
  const write = (values: readonly unknown[], timestamps: readonly number[]): void | Promise<void> => {
    for (let i = 0; i < values.length; i++) {
      try {
        const call = fn(values[i]);
        if (call !== undefined && typeof call.then === 'function') return rest(values, timestamps, i, call);
      } catch (error) {
        failed(error, values[i], timestamps[i]!);
      }
    }
  };
  return { open: async () => ({ write, async flush() {}, async close() {} }) };
}
