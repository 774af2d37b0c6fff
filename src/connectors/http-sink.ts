// The HTTP sink: records that are POSTed, one a request or many.
//
// At least once: a checkpoint waits until the server has taken what was written before it, and behind a restart records since the last one come again. With
// `idempotencyKey` a server can tell that it has seen them.
//
// Invariants:
//  P1  With `concurrency` 1, the default, the server sees records in their order; a request is sent when the one before was answered.
//  P2  What can help is tried again, with the same body, key and signature: no answer, 408, 425, 429, 500, 502, 503, 504. Everything else is a refusal.
//  P3  Every wait ends with the attempt.

import { randomUUID } from 'node:crypto';
import { MillraceError } from '../errors.ts';
import type { Sink, SinkContext, SinkWriter } from '../graph/sink.ts';
import { type Io, systemIo } from '../runtime/io.ts';
import { DEFAULT_WAITS, waitBefore } from '../time/backoff.ts';
import { type Format, json, lineCodecOf } from './formats.ts';
import { frame } from './framing.ts';
import { RETRIED_STATUSES, reasonOf, retryAfterMs } from './http-answers.ts';
import { pause } from './pause.ts';
import { type BodySignature, BodySigner } from './signed-body.ts';

/** What the server has refused. */
export interface HttpRefusal<T> {
  readonly values: readonly T[];
  readonly status: number;
  /** The beginning of the answer. */
  readonly body: string;
}

/** Where `http.sink()` writes, and how. */
export interface HttpSinkOptions<T> {
  url: string;
  /** json() by default. */
  format?: Format<T>;
  /** 'POST' by default. */
  method?: 'POST' | 'PUT' | 'PATCH';
  /** Sent with each request, such as `authorization`; the type of the content is the format's. */
  headers?: Record<string, string>;
  /** Up to so many records in one body, framed as in files: by line feed, or by their lengths. 1 by default: a body is a record. */
  batch?: number;
  /** Requests that are open at once; 1 by default, which keeps the order. */
  concurrency?: number;
  /** Requests a second, at most; no limit by default. For each instance of the sink. */
  perSecond?: number;
  /** Milliseconds until an answer must have come; 30,000 by default. */
  timeout?: number;
  /** How often a request is tried again before the job fails with CONNECTION_FAILED; 8 by default, which is about half a minute. */
  retries?: number;
  /** Sent as `idempotency-key`: a name for the record that is the same when it comes again. `true`: random, the same for each try of a request. With a function, `batch` is 1. */
  idempotencyKey?: true | ((value: T) => string);
  /** Signs each body. */
  signature?: BodySignature;
  /** Told what was refused; the sink goes on without it. By default a refusal fails the job with HTTP_REFUSED. */
  onRefused?(refusal: HttpRefusal<T>): void;
}

const TYPES: Readonly<Record<string, string>> = {
  json: 'application/json',
  ndjson: 'application/x-ndjson',
  csv: 'text/csv',
  txt: 'text/plain',
  msgpack: 'application/msgpack',
};
const WAITING_RECORDS = 1024;

interface Request<T> {
  readonly values: readonly T[];
  readonly body: Uint8Array;
  readonly key: string | undefined;
}

export function httpSink<T>(options: HttpSinkOptions<T>, io: Io = systemIo()): Sink<T> {
  const { url, batch = 1, concurrency = 1, perSecond, timeout = 30_000, retries = 8, idempotencyKey } = options;
  let parsed: URL | undefined;
  try {
    parsed = new URL(url);
  } catch {
    // Said below.
  }
  const refuse = (what: string, todo: string): never => {
    throw new MillraceError('OPTION_INVALID', `${what} of http.sink() means nothing.`, { todo });
  };
  if (parsed?.protocol !== 'http:' && parsed?.protocol !== 'https:') refuse(`The url '${url}'`, 'Give one that begins with http:// or https://.');
  if (parsed!.username !== '' || parsed!.password !== '') refuse('A url with a password', 'Give it as the header `authorization`.');
  for (const [name, number] of Object.entries({ batch, concurrency, perSecond: perSecond ?? 1, timeout, retries: retries + 1 }))
    if (!(number > 0)) refuse(`${name}: ${number}`, 'Give a number above 0.');
  if (typeof idempotencyKey === 'function' && batch !== 1) refuse('idempotencyKey with a batch', 'Leave out batch: a key names one record.');
  const format = options.format ?? (json() as Format<T>);
  const signer = options.signature === undefined ? undefined : new BodySigner(options.signature);
  return {
    async open(context) {
      await format.open?.();
      return new HttpWriter({ ...options, batch, concurrency, timeout, retries }, format, signer, context, io);
    },
  };
}

type Settings<T> = HttpSinkOptions<T> & { readonly batch: number; readonly concurrency: number; readonly timeout: number; readonly retries: number };

class HttpWriter<T> implements SinkWriter<T> {
  readonly #settings: Settings<T>;
  readonly #format: Format<T>;
  readonly #signer: BodySigner | undefined;
  readonly #context: SinkContext;
  readonly #io: Io;
  readonly #ended = new AbortController();
  #waiting: T[] = [];
  #open = 0;
  #failure: { readonly error: unknown } | undefined;
  #wakes: (() => void)[] = [];
  /** When the next request may be sent. */
  #next = 0;

  constructor(settings: Settings<T>, format: Format<T>, signer: BodySigner | undefined, context: SinkContext, io: Io) {
    this.#settings = settings;
    this.#format = format;
    this.#signer = signer;
    this.#context = context;
    this.#io = io;
    const end = (): void => this.#end();
    context.signal.addEventListener('abort', end, { once: true });
    if (context.signal.aborted) end();
  }

  write(values: readonly T[]): Promise<void> | undefined {
    this.#usable();
    for (const value of values) this.#waiting.push(value);
    this.#proceed(false);
    return this.#waiting.length < WAITING_RECORDS ? undefined : this.#until(() => this.#waiting.length < WAITING_RECORDS);
  }

  flush(): Promise<void> {
    this.#proceed(true);
    return this.#until(() => {
      this.#proceed(true);
      return this.#waiting.length === 0 && this.#open === 0;
    });
  }

  async close(): Promise<void> {
    this.#end();
  }

  #end(): void {
    this.#ended.abort();
    this.#wake();
  }

  /** Sends what may be sent; with `all` also a batch that is not full. One that no other request holds up is sent at once, full or not. */
  #proceed(all: boolean): void {
    const { batch, concurrency } = this.#settings;
    while (this.#open < concurrency && this.#failure === undefined && !this.#ended.signal.aborted) {
      if (this.#waiting.length === 0 || (this.#waiting.length < batch && !all && this.#open > 0)) return;
      this.#open += 1;
      const values = this.#waiting.splice(0, batch);
      this.#send(values)
        .catch((error: unknown) => {
          this.#failure ??= { error };
        })
        .finally(() => {
          this.#open -= 1;
          this.#proceed(false);
          this.#wake();
        });
    }
  }

  async #send(values: readonly T[]): Promise<void> {
    const { url, retries, onRefused } = this.#settings;
    const { uid, log } = this.#context;
    const request = this.#request(values);
    for (let tried = 0; ; tried += 1) {
      await this.#turn();
      if (this.#ended.signal.aborted) throw this.#interrupted();
      let failure: string;
      let cause: unknown;
      let wait = 0;
      try {
        const { response, body } = await this.#ask(request);
        if (response.status >= 200 && response.status <= 299) return;
        if (!RETRIED_STATUSES.has(response.status)) {
          const refusal: HttpRefusal<T> = { values, status: response.status, body: body.slice(0, 1000) };
          if (onRefused !== undefined) return onRefused(refusal);
          throw new MillraceError('HTTP_REFUSED', `${url} refused a request: ${response.status} ${refusal.body.slice(0, 200)}.`, {
            todo: 'Correct the url, the credentials or the records, or give onRefused to go on without them.',
            uid,
          });
        }
        failure = `it answered ${response.status}`;
        wait = retryAfterMs(response.headers.get('retry-after'), this.#io.clock.now());
      } catch (error) {
        if (error instanceof MillraceError) throw error;
        if (this.#ended.signal.aborted) throw this.#interrupted();
        failure = reasonOf(error);
        cause = error;
      }
      if (tried >= retries)
        throw new MillraceError('CONNECTION_FAILED', `${url} does not take a request, tried ${tried + 1} times: ${failure}.`, {
          todo: 'Does it run, and is the url right?',
          uid,
          cause,
        });
      wait = Math.max(wait, waitBefore(tried + 1, DEFAULT_WAITS, this.#io.random()));
      log.warn({ uid, failure }, `${url} does not take a request; it is tried again in ${Math.ceil(wait)} ms.`);
      await pause(wait, this.#ended.signal, this.#io.clock);
    }
  }

  #request(values: readonly T[]): Request<T> {
    const { batch, idempotencyKey } = this.#settings;
    const key = idempotencyKey === undefined ? undefined : idempotencyKey === true ? randomUUID() : idempotencyKey(values[0]!);
    const codec = lineCodecOf(this.#format);
    if (batch === 1) return { values, key, body: this.#format.encode(values[0]!) };
    if (codec === undefined) return { values, key, body: Buffer.concat(values.map((value) => frame(this.#format.encode(value)))) };
    const lines = values.map((value) => codec.encode(value));
    const header = codec.headerOf?.(values[0]!);
    return { values, key, body: Buffer.from(`${[...(header === undefined ? [] : [header]), ...lines].join('\n')}\n`) };
  }

  async #ask({ body, key }: Request<T>): Promise<{ readonly response: Response; readonly body: string }> {
    const { url, method = 'POST', headers, timeout, batch } = this.#settings;
    const extension = this.#format.extension ?? '';
    const type = batch > 1 && extension === 'json' ? TYPES['ndjson']! : (TYPES[extension] ?? 'application/octet-stream');
    const over = new AbortController();
    const end = (): void => over.abort(new Error('the attempt has ended'));
    const { clock } = this.#io;
    const timer = clock.setTimeout(() => over.abort(new Error(`no answer within ${timeout} ms`)), timeout);
    this.#ended.signal.addEventListener('abort', end);
    try {
      const response = await fetch(url, {
        method,
        headers: {
          'content-type': type,
          ...headers,
          ...(key === undefined ? {} : { 'idempotency-key': key }),
          ...(this.#signer === undefined ? {} : { [this.#signer.header]: this.#signer.sign(body) }),
        },
        body: new Uint8Array(body),
        redirect: 'manual',
        signal: over.signal,
      });
      return { response, body: await response.text() };
    } finally {
      clock.clearTimeout(timer);
      this.#ended.signal.removeEventListener('abort', end);
    }
  }

  /** Waits until the rate allows a request. */
  async #turn(): Promise<void> {
    const { perSecond } = this.#settings;
    if (perSecond === undefined) return;
    const now = this.#io.clock.now();
    const at = Math.max(now, this.#next);
    this.#next = at + 1000 / perSecond;
    if (at > now) await pause(at - now, this.#ended.signal, this.#io.clock);
  }

  #usable(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  async #until(holds: () => boolean): Promise<void> {
    for (;;) {
      this.#usable();
      if (holds()) return;
      if (this.#ended.signal.aborted) throw this.#interrupted();
      await new Promise<void>((resolve) => void this.#wakes.push(resolve));
    }
  }

  #wake(): void {
    const woken = this.#wakes;
    this.#wakes = [];
    for (const wake of woken) wake();
  }

  #interrupted(): MillraceError {
    return new MillraceError('SINK_FAILED', 'The attempt ended before everything was sent.', { uid: this.#context.uid });
  }
}
