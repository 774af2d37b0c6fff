// A job of two tasks that send to each other, and read nothing.

import { job, type Source } from 'millrace';

const nothing = {
  bounded: false,
  async *splits({ signal }: { readonly signal: AbortSignal }) {
    await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
  },
  splitId: () => '',
  async *read() {},
} as unknown as Source<number>;

export const acting = job('acting', (env) => {
  env
    .source('in', nothing)
    .keyBy((n) => n)
    .forEach('out', () => {});
});
