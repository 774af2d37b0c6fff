import { describe, expect, it } from 'vitest';
import type { SinkContext, SinkWriter } from '../../src/graph/sink.ts';
import { PlainSink } from '../../src/runtime/plain-sink.ts';
import { TransactionalSinkRunner } from '../../src/runtime/transactional-sink.ts';
import { ANEW, SINK_OPTIONS } from './sink-options.ts';

function deferred<T>(): { readonly promise: Promise<T>; resolve(value: T): void } {
  let resolve!: (value: T) => void;
  const promise = new Promise<T>((done) => {
    resolve = done;
  });
  return { promise, resolve };
}

const ADOPTED = ['1', '2'].map((writer) => ({ writer, lineage: 'lineage', segments: [], data: undefined }));

/** Writers of which a test sees who is open. */
class Doors {
  readonly open = new Set<string>();
  readonly opened: string[] = [];
  /** Of the writer that is asked for its marker. */
  lastCommitted: (writer: string) => Promise<number> = async () => 0;
  opening: (writer: string) => Promise<void> = async () => {};

  runner(): TransactionalSinkRunner {
    const open = async ({ writer }: SinkContext) => {
      await this.opening(writer);
      this.open.add(writer);
      this.opened.push(writer);
      const close = async (): Promise<void> => void this.open.delete(writer);
      return { commit: async () => {}, lastCommitted: () => this.lastCommitted(writer), close };
    };
    return new TransactionalSinkRunner({ transactional: true, open }, 0, { ...ANEW, restored: ADOPTED });
  }
}

describe('a sink whose opening comes to nothing', () => {
  it('closes also the writer that could not say what it has committed', async () => {
    const doors = new Doors();
    doors.lastCommitted = async (writer) => {
      if (writer === '1') throw new Error('no marker to be read');
      return 0;
    };
    const sink = doors.runner();
    await expect(sink.open()).rejects.toMatchObject({ code: 'SINK_FAILED' });
    expect([...doors.open]).toEqual(['0', '1', '2']);
    await sink.close();
    expect([...doors.open]).toEqual([]);
  });

  it('closes a writer that opens only when its task has ended, and those that were open', async () => {
    const doors = new Doors();
    const gate = deferred<void>();
    const reached = deferred<void>();
    doors.opening = async (writer) => {
      if (writer !== '1') return;
      reached.resolve();
      await gate.promise;
    };
    const sink = doors.runner();
    const opened = sink.open();
    await reached.promise;
    await sink.close();
    gate.resolve();
    await expect(opened).rejects.toMatchObject({ code: 'SINK_FAILED' });
    expect([...doors.open]).toEqual([]);
    expect(doors.opened).toEqual(['0', '2', '1']);
  });

  it('closes the writer of a plain sink that opens only when its task has ended', async () => {
    const gate = deferred<SinkWriter<unknown>>();
    let closed = 0;
    const sink = new PlainSink({ open: () => gate.promise }, 0, SINK_OPTIONS);
    const opened = sink.open();
    await sink.close();
    gate.resolve({ write: () => {}, flush: async () => {}, close: async () => void closed++ });
    await expect(opened).rejects.toMatchObject({ code: 'SINK_FAILED' });
    expect(closed).toBe(1);
  });
});
