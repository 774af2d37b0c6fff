import { createHmac } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { gzipSync } from 'node:zlib';
import { type Format, job } from 'millrace';
import { http } from 'millrace/connectors';
import { describe, expect, it, onTestFinished } from 'vitest';
import { EventStream } from '../../src/connectors/event-stream.ts';
import { csv, json, msgpack, type Schema, text } from '../../src/connectors/formats.ts';
import { frame } from '../../src/connectors/framing.ts';
import { retryAfterMs } from '../../src/connectors/http-answers.ts';
import { type HttpEventsOptions, httpEvents } from '../../src/connectors/http-events.ts';
import { type HttpSinkOptions, httpSink } from '../../src/connectors/http-sink.ts';
import { type HttpPosition, type HttpSourceOptions, httpSource } from '../../src/connectors/http-source.ts';
import { SeenKeys } from '../../src/connectors/seen-keys.ts';
import type { SinkWriter } from '../../src/graph/sink.ts';
import { type Io, systemIo } from '../../src/runtime/io.ts';
import { checkpointsIn, ends, RESTARTS, Seen } from '../protocols/lab.ts';
import { type Letter, readContext, sinkContext, temporaryFolder } from './reading.ts';

/** Waits are over at once, and written down. */
function hasty(): { io: Io; waits: number[] } {
  const waits: number[] = [];
  const system = systemIo();
  let now = 0;
  const setTimeout = (fn: () => void, ms: number): unknown => {
    waits.push(ms);
    return setImmediate(() => {
      now += ms;
      fn();
    });
  };
  return { waits, io: { ...system, clock: { now: () => now, setTimeout, clearTimeout: (handle) => clearImmediate(handle as NodeJS.Immediate) } } };
}

interface Listening<T> {
  url: string;
  letters: Letter[];
  next(): Promise<{ values: T[]; position: HttpPosition } | undefined>;
  post(
    body: string | Uint8Array,
    headers?: Record<string, string>,
    method?: string,
  ): Promise<{ status: number; body: Record<string, unknown>; headers: Headers }>;
  stored(position: HttpPosition): Promise<void>;
  end(): void;
}

async function listening<T>(options: Partial<HttpSourceOptions<T>> = {}, from?: HttpPosition, io?: Io): Promise<Listening<T>> {
  const attempt = new AbortController();
  const letters: Letter[] = [];
  let told = (_: string): void => {};
  const address = new Promise<string>((resolve) => {
    told = resolve;
  });
  const source = httpSource<T>({ port: 0, path: '/in', onListening: ({ url }) => told(url), ...options }, io);
  const batches = source.read('http', from, readContext(letters, { signal: attempt.signal }))[Symbol.asyncIterator]();
  let first: Promise<IteratorResult<{ values: T[]; position: HttpPosition }>> | undefined = batches.next();
  const url = await address;
  onTestFinished(() => attempt.abort());
  return {
    url,
    letters,
    async next() {
      const pending = first ?? batches.next();
      first = undefined;
      const { done, value } = await pending;
      return done === true ? undefined : value;
    },
    async post(body, headers = {}, method = 'POST') {
      const response = await fetch(url, { method, body: method === 'GET' ? null : typeof body === 'string' ? body : new Uint8Array(body), headers });
      return { status: response.status, body: (await response.json()) as Record<string, unknown>, headers: response.headers };
    },
    stored: (position) => source.onCheckpointComplete!(new Map([['http', position]])),
    end: () => attempt.abort(),
  };
}

describe('a webhook source', () => {
  it('takes a body for a record, in every format, with the time at which it came', async () => {
    const before = Date.now();
    const { next, post } = await listening<object>();
    expect(await post('{"n":1}')).toMatchObject({ status: 202, body: { accepted: 1 } });
    const batch = (await next()) as unknown as { timestamps: number[] };
    expect(batch).toMatchObject({ values: [{ n: 1 }], position: { requests: 1 } });
    expect(batch.timestamps[0]).toBeGreaterThanOrEqual(before);
    const packed = await listening({ format: msgpack() });
    await packed.post(msgpack().encode({ n: 2 }));
    expect((await packed.next())!.values).toEqual([{ n: 2 }]);
    const zipped = await listening({ format: text() });
    await zipped.post(gzipSync('mill'), { 'content-encoding': 'gzip' });
    expect((await zipped.next())!.values).toEqual(['mill']);
  });

  it.each<[string, Partial<HttpSourceOptions<unknown>>, string | Uint8Array, Record<string, string>, unknown[]]>([
    ['lines', {}, '1\n2\n\n3', { 'content-type': 'application/x-ndjson' }, [1, 2, 3]],
    ['lines that are said to be', { batch: true }, '1\n2', {}, [1, 2]],
    [
      'csv with its columns',
      { batch: true, format: csv() },
      'a,b\r\n1,2\r\n3,4',
      {},
      [
        { a: '1', b: '2' },
        { a: '3', b: '4' },
      ],
    ],
    ['frames', { batch: true, format: msgpack() }, Buffer.concat([1, 2].map((n) => frame(msgpack().encode(n)))), {}, [1, 2]],
  ])('takes a body of %s for many records', async (_, options, body, headers, expected) => {
    const { next, post } = await listening(options);
    expect((await post(body, headers)).body).toEqual({ accepted: expected.length });
    expect((await next())!.values).toEqual(expected);
  });

  it('keeps what does not decode as dead letters, with their bytes, or refuses it', async () => {
    const { next, post, letters } = await listening({ batch: true });
    expect(await post('1\nno\n2')).toMatchObject({ status: 202, body: { accepted: 2, undecodable: 1 } });
    expect((await next())!.values).toEqual([1, 2]);
    expect(letters).toEqual([{ record: Uint8Array.from(Buffer.from('no')), error: expect.objectContaining({ code: 'RECORD_UNDECODABLE' }) }]);
    const refusing = await listening({ undecodable: 'refuse' });
    expect((await refusing.post('no')).status).toBe(400);
    expect((await refusing.post('1')).status).toBe(202);
    expect((await refusing.next())!.values).toEqual([1]);
  });

  it('answers what is not for it, or too much, and goes on', async () => {
    const { url, next, post } = await listening({ maxBytes: 1000 });
    expect((await fetch(`${url}/deeper`, { method: 'POST', body: '1' })).status).toBe(404);
    const got = await post('', {}, 'GET');
    expect([got.status, got.headers.get('allow')]).toEqual([405, 'POST']);
    expect((await post(`"${'x'.repeat(1000)}"`)).status).toBe(413);
    expect((await post(gzipSync(`"${'x'.repeat(100_000)}"`), { 'content-encoding': 'gzip' })).status).toBe(413);
    expect((await post('no gzip', { 'content-encoding': 'gzip' })).status).toBe(400);
    expect((await post('1', { 'content-encoding': 'br' })).status).toBe(415);
    const endless = new ReadableStream<Uint8Array>({ pull: (controller) => controller.enqueue(new Uint8Array(600)) });
    const streamed = await fetch(url, { method: 'POST', body: endless, duplex: 'half' } as RequestInit).catch((error: unknown) => error);
    if (streamed instanceof Response) expect(streamed.status).toBe(413);
    expect((await fetch(`${url}?from=here`, { method: 'POST', body: '7' })).status).toBe(202);
    expect((await next())!.values).toEqual([7]);
  });

  it('takes what one of its secrets has signed, and nothing else', async () => {
    const { next, post } = await listening({ signature: { secret: ['new', 'old'] } });
    const signed = (secret: string, body: string): Record<string, string> => ({
      'x-hub-signature-256': `sha256=${createHmac('sha256', secret).update(body).digest('hex')}`,
    });
    for (const headers of [
      {},
      signed('other', '1'),
      signed('new', '2'),
      { 'x-hub-signature-256': 'sha256=' },
      { 'x-hub-signature-256': signed('new', '1')['x-hub-signature-256']!.slice(0, -2) },
    ])
      expect((await post('1', headers)).status).toBe(401);
    expect((await post('1', signed('new', '1'))).status).toBe(202);
    expect((await post('2', signed('old', '2'))).status).toBe(202);
    const values = (await next())!.values;
    if (values.length < 2) values.push(...(await next())!.values);
    expect(values).toEqual([1, 2]);
    const stripe = await listening({ signature: { secret: 's', header: 'X-Signature', encoding: 'base64', algorithm: 'sha512' } });
    expect((await stripe.post('1', { 'x-signature': createHmac('sha512', 's').update('1').digest('base64') })).status).toBe(202);
    expect(() => http.source({ port: 0, path: '/', signature: { secret: '' } })).toThrow(expect.objectContaining({ code: 'OPTION_INVALID' }));
  });

  it('answers 429 while too many wait to be taken, and takes again', async () => {
    const { next, post } = await listening<number>({ capacity: 2 });
    expect([(await post('1')).status, (await post('2')).status]).toEqual([202, 202]);
    // The read that was under way has taken the first, or both.
    const taken = (await next())!.values;
    let refused: Awaited<ReturnType<typeof post>> | undefined;
    let sent = 2;
    while (refused === undefined) {
      const answer = await post(String(sent + 1));
      if (answer.status === 429) refused = answer;
      else sent += 1;
    }
    expect(refused.headers.get('retry-after')).toBe('1');
    while (taken.length < sent) taken.push(...(await next())!.values);
    expect(taken).toEqual(Array.from({ length: sent }, (_, i) => i + 1));
    expect((await post('0')).status).toBe(202);
  });

  it('answers behind a checkpoint that has the records, and 503 where the attempt ends before', async () => {
    const { next, post, stored, end } = await listening<number>({ acknowledge: 'checkpoint' });
    const answered: string[] = [];
    const asked = (n: number): Promise<void> => post(String(n)).then(({ status }) => void answered.push(`${n}: ${status}`));
    const first = asked(1);
    const { position } = (await next())!;
    const second = asked(2);
    const behind = (await next())!.position;
    expect([position, behind]).toEqual([{ requests: 1 }, { requests: 2 }]);
    expect(answered).toEqual([]);
    await stored(position);
    await first;
    expect(answered).toEqual(['1: 200']);
    const third = asked(3);
    await next();
    end();
    await Promise.all([second, third]);
    expect(answered.slice(1).sort()).toEqual(['2: 503', '3: 503']);
  });

  it('lets nobody wait longer than answerWithin', async () => {
    const { post } = await listening({ acknowledge: 'checkpoint', answerWithin: 1 });
    expect((await post('1')).status).toBe(503);
  });

  it('takes a request of a name once, also after a restore, and lets it wait with the first', async () => {
    const named = { idempotency: { remember: 100 } };
    const first = await listening<number>({ ...named, acknowledge: 'checkpoint' });
    const answers = [first.post('1', { 'idempotency-key': 'a' })];
    const one = (await first.next())!;
    answers.push(first.post('1', { 'idempotency-key': 'a' }));
    answers.push(first.post('2', { 'idempotency-key': 'b' }));
    const two = (await first.next())!;
    await first.stored(two.position);
    expect((await Promise.all(answers)).map(({ status, body }) => [status, body['repeated']])).toEqual([
      [200, undefined],
      [200, true],
      [200, undefined],
    ]);
    expect((await first.post('1', { 'idempotency-key': 'a' })).body).toEqual({ repeated: true });
    first.end();
    // Of the checkpoint in between: it has the record of a, and not that of b.
    const restored = await listening<number>(named, structuredClone(one.position));
    expect((await restored.post('1', { 'idempotency-key': 'a' })).body).toEqual({ repeated: true });
    expect((await restored.post('2', { 'idempotency-key': 'b' })).body).toEqual({ accepted: 1 });
    expect((await restored.post('3')).body).toEqual({ accepted: 1 });
    const values = (await restored.next())!.values;
    if (values.length < 2) values.push(...(await restored.next())!.values);
    expect(values).toEqual([2, 3]);
  });

  it('fails where its format cannot be used, and not the sender alone', async () => {
    const schema: Schema<number> = { '~standard': { version: 1, vendor: 'test', validate: async (value) => ({ value }) } };
    const { next, post } = await listening({ format: json(schema) });
    const failure = expect(next()).rejects.toMatchObject({ code: 'SCHEMA_IS_ASYNC' });
    expect((await post('1')).status).toBe(503);
    await failure;
  });

  it('answers 503 while what its format needs cannot be had', async () => {
    let down = true;
    const format: Format<number> = { ...json<number>(), prepare: () => (down ? Promise.reject(new Error('the registry is down')) : undefined) };
    const { next, post } = await listening({ format });
    expect((await post('1')).status).toBe(503);
    down = false;
    expect((await post('1')).status).toBe(202);
    expect((await next())!.values).toEqual([1]);
  });

  it.each([
    { port: -1, path: '/' },
    { port: 0, path: 'in' },
    { port: 0, path: '/', maxBytes: 0 },
    { port: 0, path: '/', acknowledge: 'now' as never },
    { port: 0, path: '/', undecodable: 'drop' as never },
  ])('refuses %j', (options) => expect(() => http.source(options)).toThrow(expect.objectContaining({ code: 'OPTION_INVALID' })));

  it('in a job that crashes, loses nothing that it has answered 200', async () => {
    const folder = await temporaryFolder();
    const seen = new Seen<number>();
    let crash = false;
    let url = '';
    const opened: (() => void)[] = [];
    const source = http.source<number>({
      port: 0,
      path: '/in',
      acknowledge: 'checkpoint',
      onListening: (address) => {
        url = address.url;
        for (const wake of opened.splice(0)) wake();
      },
    });
    const listens = new Promise<void>((resolve) => void opened.push(resolve));
    const running = ends(
      await job('hooks', (env) => {
        env
          .source('hooks', source)
          .map((n) => {
            if (crash) {
              crash = false;
              throw new Error('crash');
            }
            return n;
          })
          .sink('out', seen);
      }).start({ checkpoints: checkpointsIn(folder), restarts: RESTARTS }),
    );
    await listens;
    const post = async (n: number): Promise<number> => (await fetch(url, { method: 'POST', body: String(n) })).status;
    const first = post(1);
    await seen.until((values) => values.includes(1));
    await running.checkpoint();
    expect(await first).toBe(200);
    const restarted = new Promise<void>((resolve) => void opened.push(resolve));
    crash = true;
    expect(await post(2).catch(() => 503)).toBe(503);
    await restarted;
    const again = post(2);
    await seen.until((values) => values.includes(2));
    await running.stop();
    expect(await again).toBe(200);
    expect([...new Set(seen.values)]).toEqual([1, 2]);
  });
});

describe('the keys that a source has seen', () => {
  it('are the newest at least, and those of a position are those that were there when it was made', () => {
    const keys = new SeenKeys(3);
    const marks = Array.from({ length: 10 }, (_, i) => {
      keys.add(`k${i}`);
      return keys.marks;
    });
    for (const [i, mark] of marks.entries()) {
      const restored = new SeenKeys(3, structuredClone(mark));
      for (let k = 0; k < 10; k += 1) {
        if (k > i) expect([i, k, restored.has(`k${k}`)]).toEqual([i, k, false]);
        else if (k > i - 3) expect([i, k, restored.has(`k${k}`)]).toEqual([i, k, true]);
      }
    }
    expect(keys.has('k0')).toBe(false);
  });
});

/** Answers requests with functions, one after the other; the last for all that follow. */
async function answering(
  ...answers: ((request: IncomingMessage & { body: string }, response: ServerResponse) => void)[]
): Promise<{ url: string; requests: (IncomingMessage & { body: string })[]; close: () => Promise<void> }> {
  const requests: (IncomingMessage & { body: string })[] = [];
  const server = createServer(async (request, response) => {
    const whole = Object.assign(request, { body: '' });
    for await (const part of request) whole.body += String(part);
    requests.push(whole);
    answers[Math.min(requests.length, answers.length) - 1]!(whole, response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const close = (): Promise<void> => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(() => resolve()));
  };
  onTestFinished(close);
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook`, requests, close };
}
const status =
  (code: number, headers: Record<string, string> = {}) =>
  (_: unknown, response: ServerResponse): void =>
    void response.writeHead(code, headers).end('said so');

describe('an HTTP sink', () => {
  const opened = <T>(options: HttpSinkOptions<T>, io?: Io, signal = new AbortController().signal): Promise<SinkWriter<T>> =>
    httpSink(options, io).open(sinkContext({ signal }));

  it('sends a record a request, in their order, and flushes when all are answered', async () => {
    const { url, requests } = await answering(status(200));
    const writer = await opened<object>({ url, headers: { authorization: 'Bearer x' } });
    await writer.write([{ n: 1 }, { n: 2 }, { n: 3 }], []);
    await writer.flush();
    expect(requests.map(({ method, body }) => `${method} ${body}`)).toEqual(['POST {"n":1}', 'POST {"n":2}', 'POST {"n":3}']);
    expect(requests[0]!.headers).toMatchObject({ 'content-type': 'application/json', authorization: 'Bearer x' });
    await writer.close();
  });

  it.each<[string, Format<unknown>, unknown[], string[]]>([
    ['json', json(), [1, 2, 3, 4, 5], ['1\n2\n', '3\n4\n', '5\n']],
    ['csv', csv(), [{ a: 1 }, { a: 2 }, { a: 3 }], ['a\n1\n2\n', 'a\n3\n']],
  ])('sends batches of %s', async (_, format, values, bodies) => {
    const { url, requests } = await answering(status(204));
    const writer = await opened<unknown>({ url, format, batch: 2 });
    await writer.write(values, []);
    await writer.flush();
    expect(requests.map(({ body }) => body)).toEqual(bodies);
  });

  it('tries again what can help, with the same body, key and signature, after a while that the server may say', async () => {
    const { url, requests } = await answering(status(503), status(429, { 'retry-after': '7' }), (request) => void request.socket.destroy(), status(200));
    const { io, waits } = hasty();
    const system = systemIo();
    // The patience with an answer is real.
    const clock = {
      ...io.clock,
      setTimeout: (fn: () => void, ms: number) => (ms === 30_000 ? system.clock.setTimeout(fn, ms) : io.clock.setTimeout(fn, ms)),
      clearTimeout: system.clock.clearTimeout,
    };
    const writer = await opened<number>({ url, idempotencyKey: true, signature: { secret: 's' } }, { ...io, clock });
    await writer.write([1], []);
    await writer.flush();
    expect(requests.map(({ body, headers }) => [body, headers['idempotency-key'], headers['x-hub-signature-256']])).toEqual(
      Array.from({ length: 4 }, () => ['1', expect.stringMatching(/^[0-9a-f-]{36}$/), `sha256=${createHmac('sha256', 's').update('1').digest('hex')}`]),
    );
    expect(new Set(requests.map(({ headers }) => headers['idempotency-key'])).size).toBe(1);
    expect(waits.filter((ms) => ms >= 7000)).toHaveLength(1);
    await writer.close();
  });

  it('fails with CONNECTION_FAILED when tries are over, and says why', async () => {
    const { url, close } = await answering(status(500));
    const writer = await opened<number>({ url, retries: 0 });
    await writer.write([1], []);
    await expect(writer.flush()).rejects.toMatchObject({ code: 'CONNECTION_FAILED', retryable: true, message: expect.stringContaining('500') });
    expect(() => writer.write([2], [])).toThrow(expect.objectContaining({ code: 'CONNECTION_FAILED' }));
    await close();
    const away = await opened<number>({ url, retries: 0 });
    await away.write([1], []);
    await expect(away.flush()).rejects.toMatchObject({ code: 'CONNECTION_FAILED', message: expect.stringMatching(/ECONNREFUSED/) });
  });

  it('gives up an answer that does not come', async () => {
    const { url } = await answering(() => {});
    const writer = await opened<number>({ url, retries: 0, timeout: 20 });
    await writer.write([1], []);
    await expect(writer.flush()).rejects.toMatchObject({ code: 'CONNECTION_FAILED', message: expect.stringContaining('20 ms') });
  });

  it.each([400, 401, 404, 422, 301])('does not try again what is refused: %i is HTTP_REFUSED, or goes to onRefused', async (code) => {
    const { url, requests } = await answering(status(code), status(200));
    const writer = await opened<number>({ url });
    await writer.write([1], []);
    await expect(writer.flush()).rejects.toMatchObject({ code: 'HTTP_REFUSED', retryable: false, message: expect.stringContaining(`${code} said so`) });
    expect(requests).toHaveLength(1);
    const other = await answering(status(code), status(200));
    const refused: unknown[] = [];
    const going = await opened<number>({ url: other.url, onRefused: (refusal) => void refused.push(refusal) });
    await going.write([1, 2], []);
    await going.flush();
    expect(refused).toEqual([{ values: [1], status: code, body: 'said so' }]);
    expect(other.requests.map(({ body }) => body)).toEqual(['1', '2']);
  });

  it('names records, so that those which come again are known', async () => {
    const { url, requests } = await answering(status(200));
    const writer = await opened<{ id: number }>({ url, idempotencyKey: ({ id }) => `order-${id}` });
    await writer.write([{ id: 1 }, { id: 2 }], []);
    await writer.flush();
    expect(requests.map(({ headers }) => headers['idempotency-key'])).toEqual(['order-1', 'order-2']);
  });

  it('keeps to its rate', async () => {
    const { url } = await answering(status(200));
    const { io, waits } = hasty();
    const clock = { ...io.clock, now: () => 0 };
    const writer = await opened<number>(
      { url, perSecond: 10, timeout: 1e9 },
      { ...io, clock: { ...clock, setTimeout: (fn, ms) => (ms === 1e9 ? undefined : clock.setTimeout(fn, ms)) } },
    );
    await writer.write([1, 2, 3], []);
    await writer.flush();
    expect(waits).toEqual([100, 200]);
  });

  it('has as many requests open as it may', async () => {
    const open: ServerResponse[] = [];
    const { url, requests } = await answering((_, response) => {
      open.push(response);
      if (open.length === 3) for (const each of open) each.end();
      if (open.length > 3) response.end();
    });
    const writer = await opened<number>({ url, concurrency: 3 });
    await writer.write([1, 2, 3, 4], []);
    await writer.flush();
    expect(requests).toHaveLength(4);
  });

  it('holds the job back, until the attempt ends', async () => {
    const { url } = await answering(() => {});
    const attempt = new AbortController();
    const writer = await opened<number>({ url }, undefined, attempt.signal);
    const held = writer.write(
      Array.from({ length: 2000 }, (_, n) => n),
      [],
    );
    expect(held).toBeInstanceOf(Promise);
    const failure = expect(held).rejects.toMatchObject({ code: 'SINK_FAILED' });
    attempt.abort();
    await failure;
    await expect(writer.flush()).rejects.toMatchObject({ code: 'SINK_FAILED' });
    await writer.close();
  });

  it.each<object>([
    { url: 'ftp://x' },
    { url: 'nothing' },
    { url: 'http://a:b@x' },
    { url: 'http://x', batch: 0 },
    { url: 'http://x', retries: -1 },
    { url: 'http://x', batch: 2, idempotencyKey: () => 'x' },
  ])('refuses %j', (options) => expect(() => http.sink(options as HttpSinkOptions<unknown>)).toThrow(expect.objectContaining({ code: 'OPTION_INVALID' })));

  it('understands when it may come again', () => {
    expect([null, '3', 'Thu, 01 Jan 1970 00:00:09 GMT', 'soon', '-5', '100000'].map((header) => retryAfterMs(header, 4000))).toEqual([
      0, 3000, 5000, 0, 0, 60_000,
    ]);
  });
});

describe('an event stream', () => {
  const stream = '\ufeff: hello\nid: 1\ndata: a\ndata:  b\n\nevent: tick\rdata\r\rdata: c\r\nid: 2\r\nretry: 50\r\nid: x\0y\r\n\r\ndata: unfinished';
  const expected = [
    { type: 'message', data: 'a\n b', id: '1' },
    { type: 'tick', data: '', id: '1' },
    { type: 'message', data: 'c', id: '2' },
  ];

  it('is read as the standard has it, however it is cut', () => {
    for (const size of [1, 2, 3, 7, 1000]) {
      const events = new EventStream();
      const seen = [];
      for (let at = 0; at < stream.length; at += size) seen.push(...events.push(stream.slice(at, at + size)));
      expect([seen, events.retryMs]).toEqual([expected, 50]);
    }
  });
});

describe('a source of events', () => {
  const sse = { 'content-type': 'text/event-stream; charset=utf-8' };
  const events =
    (body: string) =>
    (_: unknown, response: ServerResponse): void =>
      void response.writeHead(200, sse).end(body);
  const all = async <T>(options: HttpEventsOptions<T>, from?: { id: string }, letters: Letter[] = []): Promise<{ values: T[]; ids: string[] }> => {
    const read = { values: [] as T[], ids: [] as string[] };
    for await (const { values, position } of httpEvents(options, hasty().io).read(options.url, from, readContext(letters))) {
      read.values.push(...values);
      read.ids.push(position.id);
    }
    return read;
  };

  it('goes on behind the last event where the stream ends, also after a restore, until the server says 204', async () => {
    const { url, requests } = await answering(events('id: 1\ndata: 1\n\nid: 2\ndata: 2\n\ndata: 9'), status(503), events('id: ü\ndata: 3\n\n'), status(204));
    expect(await all({ url })).toEqual({ values: [1, 2, 3], ids: ['2', 'ü'] });
    expect(requests.map(({ headers }) => headers['last-event-id'] && Buffer.from(headers['last-event-id'] as string, 'latin1').toString())).toEqual([
      undefined,
      '2',
      '2',
      'ü',
    ]);
    const restored = await answering(status(204));
    await all({ url: restored.url, lastEventId: '1' }, { id: '7' });
    await all({ url: restored.url, lastEventId: '1' });
    expect(restored.requests.map(({ headers }) => headers['last-event-id'])).toEqual(['7', '1']);
  });

  it('takes the types that it is asked for, and keeps what does not decode', async () => {
    const { url } = await answering(events('event: tick\ndata: 1\n\ndata: 2\n\nevent: tick\ndata: no\n\n'), status(204));
    const letters: Letter[] = [];
    expect((await all({ url, types: ['tick'] }, undefined, letters)).values).toEqual([1]);
    expect(letters.map(({ record }) => Buffer.from(record as Uint8Array).toString())).toEqual(['no']);
  });

  it.each<[string, (request: never, response: ServerResponse) => void]>([
    ['404', status(404)],
    ['401', status(401)],
    ['another type of content', status(200, { 'content-type': 'text/html' })],
  ])('says of %s that it is refused', async (_, answer) => {
    const { url } = await answering(answer as never);
    await expect(all({ url })).rejects.toMatchObject({ code: 'HTTP_REFUSED', retryable: false });
  });

  it('gives up a server that is away: CONNECTION_FAILED', async () => {
    const { url, close } = await answering(status(500));
    await expect(all({ url, giveUpAfter: 1000 })).rejects.toMatchObject({ code: 'CONNECTION_FAILED', message: expect.stringContaining('500') });
    await close();
    await expect(all({ url, giveUpAfter: 1000 })).rejects.toMatchObject({ code: 'CONNECTION_FAILED', retryable: true });
  });

  it('ends with the attempt, whatever it waits for', async () => {
    const { url } = await answering((_, response) => void response.writeHead(200, sse).write('data: 1\n\n'));
    const attempt = new AbortController();
    const reading = httpEvents<number>({ url })
      .read(url, undefined, readContext([], { signal: attempt.signal }))
      [Symbol.asyncIterator]();
    expect((await reading.next()).value).toMatchObject({ values: [1] });
    const next = reading.next();
    attempt.abort();
    expect((await next).done).toBe(true);
    expect(() => http.events({ url: 'nothing' })).toThrow(expect.objectContaining({ code: 'OPTION_INVALID' }));
  });
});
