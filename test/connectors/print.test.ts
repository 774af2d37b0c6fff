import { Writable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { collect, print } from '../../src/connectors/index.ts';
import { print as printTo } from '../../src/connectors/print.ts';
import { sinkContext } from './reading.ts';

function slowStream(): { stream: Writable; written: string[]; release(): void } {
  const written: string[] = [];
  let held: (() => void)[] = [];
  const stream = new Writable({
    highWaterMark: 4,
    write(chunk, _encoding, done) {
      written.push(String(chunk));
      held.push(() => done());
    },
  });
  return {
    stream,
    written,
    release() {
      const now = held;
      held = [];
      for (const done of now) done();
    },
  };
}

describe('print', () => {
  it('writes a line of JSON a record, behind the prefix', async () => {
    const written: string[] = [];
    const stream = new Writable({
      write(chunk, _encoding, done) {
        written.push(String(chunk));
        done();
      },
    });
    const writer = await printTo<unknown>({ prefix: 'wc' }, stream).open(sinkContext());
    await writer.write([{ word: 'a', count: 1 }, 10n, undefined], []);
    await writer.flush();
    await writer.close();
    expect(written.join('')).toBe('wc> {"word":"a","count":1}\nwc> "10"\nwc> undefined\n');
    expect(print().open).toBeTypeOf('function');
  });

  it('holds the next batch back until the reader has caught up', async () => {
    const { stream, release } = slowStream();
    const writer = await printTo({}, stream).open(sinkContext());
    let held = true;
    const writing = Promise.resolve(writer.write(['aaaa'], [])).then(() => {
      held = false;
    });
    await new Promise((resolve) => setImmediate(resolve));
    expect(held).toBe(true);
    release();
    await writing;
  });

  it('does not wait for a slow reader when the attempt has ended', async () => {
    const { stream } = slowStream();
    const attempt = new AbortController();
    const writer = await printTo({}, stream).open(sinkContext({ signal: attempt.signal }));
    const writing = writer.write(['aaaa'], []);
    attempt.abort();
    await writing;
  });

  it('fails with the reason when the reader is gone', async () => {
    const stream = new Writable({ write: (_chunk, _encoding, done) => done(new Error('EPIPE')) });
    const writer = await printTo({}, stream).open(sinkContext());
    await expect(async () => writer.write(['a'], [])).rejects.toThrow('EPIPE');
    await expect(writer.flush()).rejects.toThrow('EPIPE');
    await expect(async () => writer.write(['b'], [])).rejects.toMatchObject({ code: 'SINK_FAILED' });
  });
});

describe('collect', () => {
  it('appends to the array', async () => {
    const into: number[] = [0];
    const writer = await collect(into).open(sinkContext());
    await writer.write([1, 2], [Number.NaN, Number.NaN]);
    await writer.flush();
    await writer.close();
    expect(into).toEqual([0, 1, 2]);
  });
});
