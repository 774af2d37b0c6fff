import { describe, expect, it } from 'vitest';
import { PlainSink } from '../../src/runtime/plain-sink.ts';
import { SINK_OPTIONS } from './sink-options.ts';

function deferred(): { promise: Promise<void>; resolve: () => void; reject: (error: unknown) => void } {
  let resolve!: () => void;
  let reject!: (error: unknown) => void;
  const promise = new Promise<void>((res, rej) => {
    resolve = res;
    reject = rej;
  });
  return { promise, resolve, reject };
}

async function plainSink(write: () => void | Promise<void>, failed: (error: unknown) => void): Promise<PlainSink> {
  const sink = new PlainSink({ open: async () => ({ write, flush: async () => {}, close: async () => {} }) }, 0, { ...SINK_OPTIONS, failed });
  await sink.open();
  return sink;
}

describe('a checkpoint that waits for a plain sink', () => {
  it('hears of a write that fails meanwhile, instead of keeping the event loop for ever', async () => {
    const write = deferred();
    const failures: unknown[] = [];
    const sink = await plainSink(
      () => write.promise,
      (error) => failures.push(error),
    );
    sink.add(1, Number.NaN);
    sink.drain();
    const uploaded = sink.barrier()();
    write.reject(new Error('disk full'));
    await expect(uploaded).rejects.toMatchObject({ code: 'SINK_FAILED' });
    expect(failures).toHaveLength(1);
    // The next one hears of it too.
    await expect(sink.barrier()()).rejects.toMatchObject({ code: 'SINK_FAILED' });
  });

  it('fails the task where a write that it makes itself throws: its records are in no checkpoint and no retry', async () => {
    const first = deferred();
    let writes = 0;
    const failures: unknown[] = [];
    const sink = await plainSink(
      () => {
        if (writes++ === 0) return first.promise;
        throw new Error('disk full');
      },
      (error) => failures.push(error),
    );
    sink.add(1, Number.NaN);
    sink.drain();
    sink.add(2, Number.NaN);
    const uploaded = sink.barrier()();
    first.resolve();
    await expect(uploaded).rejects.toMatchObject({ code: 'SINK_FAILED' });
    expect(failures).toMatchObject([{ code: 'SINK_FAILED' }]);
  });
});
