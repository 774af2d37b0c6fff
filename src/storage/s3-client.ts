// Requests to an S3 server: signed, sent, tried again.
//
// What: one request at a time for whoever calls, on connections that are kept. What can help is tried again, up to `retries` times, after a wait that doubles and of
// which a random share is taken (full jitter), so that many who failed at once do not come back at once.
//
// Invariants:
//  R1  A request that is tried again has the same body; it may have had its effect the first time, and whoever asks must bear that (`tries` says how often it was
//      sent). What an error says is not tried again where another try cannot help (s3-answers.ts, A1).
//  R2  No try lasts for ever: a connection on which nothing moves for `timeout` milliseconds is given up.
//  R3  Nothing keeps the process alive between requests.
//  R4  A clock that differs from the server's is corrected once, from its answer, and the request is signed anew.

import { request as httpRequest, type IncomingMessage, Agent as PlainAgent } from 'node:http';
import { request as httpsRequest, Agent as SecureAgent } from 'node:https';
import { MillraceError, messageOf } from '../errors.ts';
import { connectionFault, faultOf, isFault, type S3Answer, type S3Asked, type S3Fault } from './s3-answers.ts';
import { encoded, queryString, type S3Credentials, sha256, signed } from './signature.ts';

export interface S3ClientOptions {
  readonly endpoint: URL;
  readonly region: string;
  /** The bucket stands in the path, and not in the name of the host. */
  readonly pathStyle: boolean;
  readonly credentials: () => Promise<S3Credentials> | S3Credentials;
  readonly credentialsMayChange: boolean;
  readonly retries: number;
  /** Milliseconds: the most before the first retry, and before any. */
  readonly backoff: { readonly initial: number; readonly max: number };
  readonly timeout: number;
}

/** What of the world a client needs. */
export interface S3World {
  readonly now: () => number;
  readonly random: () => number;
  readonly wait: (ms: number) => Promise<void>;
}

export const REAL_WORLD: S3World = {
  now: Date.now,
  random: Math.random,
  wait: (ms) => new Promise((resolve) => void setTimeout(resolve, ms)),
};

export interface S3Request {
  readonly method: 'GET' | 'HEAD' | 'PUT' | 'POST' | 'DELETE';
  readonly bucket: string;
  /** Undefined: the bucket itself. */
  readonly key?: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
  /** For sentences: `write`, `read`, `list`. */
  readonly what: string;
  /** As many as the client's by default. */
  readonly retries?: number;
  readonly signal?: AbortSignal;
}

export interface S3Reply extends S3Answer {
  /** How often the request was sent. */
  readonly tries: number;
}

const EMPTY_HASH = sha256('');
const ERROR_BYTES = 1 << 16;
/** A server's wish to be left alone is heeded so far. */
const AFTER_MAX_MS = 30_000;

export class S3Client {
  readonly options: S3ClientOptions;
  readonly world: S3World;
  readonly #agent: PlainAgent | SecureAgent;
  /** R4. */
  #aheadMs = 0;

  constructor(options: S3ClientOptions, world: S3World) {
    this.options = options;
    this.world = world;
    const kept = { keepAlive: true, maxSockets: 64 };
    this.#agent = options.endpoint.protocol === 'https:' ? new SecureAgent(kept) : new PlainAgent(kept);
  }

  /** The whole answer. An error carries `tries`, how often it was sent, and `status`, where there was an answer. */
  async ask(request: S3Request): Promise<S3Reply> {
    return this.#trying<S3Answer>(request, async (response) => {
      const answer = { status: response.statusCode!, headers: response.headers, body: await bodyOf(response) };
      return isFault(answer) ? { fault: answer } : { done: answer };
    });
  }

  /** The answer's beginning; its body is to be read or destroyed by the caller, who also sees it break off. */
  async open(request: S3Request): Promise<{ readonly response: IncomingMessage; readonly tries: number }> {
    return this.#trying<{ readonly response: IncomingMessage }>(request, async (response) => {
      const status = response.statusCode!;
      if (status >= 200 && status <= 299) return { done: { response } };
      return { fault: { status, headers: response.headers, body: await bodyOf(response) } };
    });
  }

  /** The wait before the n-th retry, from 1. */
  pause(n: number, afterMs = 0): Promise<void> {
    const { initial, max } = this.options.backoff;
    const jittered = this.world.random() * Math.min(max, initial * 2 ** (n - 1));
    return this.world.wait(Math.max(Math.min(afterMs, AFTER_MAX_MS), jittered));
  }

  asked({ what, bucket, key }: S3Request): S3Asked {
    const { endpoint, region, credentialsMayChange } = this.options;
    return { what, address: `s3://${bucket}/${key ?? ''}`, bucket, endpoint: endpoint.origin, region, credentialsMayChange };
  }

  async #trying<T extends object>(
    request: S3Request,
    read: (response: IncomingMessage) => Promise<{ readonly done: T } | { readonly fault: S3Answer }>,
  ): Promise<T & { readonly tries: number }> {
    const retries = request.retries ?? this.options.retries;
    let corrected = false;
    let failed = 0;
    for (let tries = 1; ; tries++) {
      let fault: S3Fault;
      let status: number | undefined;
      try {
        const outcome = await read(await this.#send(request));
        if ('done' in outcome) return { ...outcome.done, tries };
        ({ status } = outcome.fault);
        fault = faultOf(outcome.fault, this.asked(request), this.world.now());
      } catch (error) {
        if (request.signal?.aborted === true || error instanceof MillraceError) throw error;
        fault = connectionFault(error as Error, this.asked(request));
      }
      if (fault.aheadMs !== undefined && !corrected) {
        corrected = true;
        this.#aheadMs = fault.aheadMs;
        continue;
      }
      if (!fault.again || failed >= retries) throw Object.assign(fault.error, { tries, status });
      failed += 1;
      await this.pause(failed, fault.afterMs);
    }
  }

  async #credentials(): Promise<S3Credentials> {
    try {
      return await this.options.credentials();
    } catch (cause) {
      if (cause instanceof MillraceError) throw cause;
      throw new MillraceError('STORAGE_CREDENTIALS', `The function that gives credentials for ${this.options.endpoint.origin} failed: ${messageOf(cause)}.`, {
        cause,
        retryable: true,
        todo: 'Correct it, or pass the keys themselves.',
      });
    }
  }

  async #send(request: S3Request): Promise<IncomingMessage> {
    const { endpoint, region, pathStyle, timeout } = this.options;
    const { method, bucket, key, query = {}, body } = request;
    const own = pathStyle ? '' : `${bucket}.`;
    const host = `${own}${endpoint.host}`;
    const path = `${endpoint.pathname.replace(/\/$/, '')}${pathStyle ? `/${encoded(bucket)}` : ''}/${(key ?? '').split('/').map(encoded).join('/')}`;
    const credentials = await this.#credentials();
    const headers: Record<string, string> = { ...request.headers, host };
    if (body !== undefined || method === 'PUT' || method === 'POST') headers['content-length'] = String(body?.byteLength ?? 0);
    const complete = signed(
      { method, path, query, headers, bodyHash: body === undefined ? EMPTY_HASH : sha256(body) },
      { credentials, region, at: new Date(this.world.now() + this.#aheadMs) },
    );
    const asked = queryString(query);
    return new Promise((resolve, reject) => {
      const secure = endpoint.protocol === 'https:';
      const outgoing = (secure ? httpsRequest : httpRequest)({
        agent: this.#agent,
        method,
        host: `${own}${endpoint.hostname.replace(/^\[|\]$/g, '')}`,
        port: endpoint.port === '' ? undefined : endpoint.port,
        path: asked === '' ? path : `${path}?${asked}`,
        headers: complete,
        ...(request.signal === undefined ? {} : { signal: request.signal }),
      });
      // R2.
      outgoing.setTimeout(timeout, () => outgoing.destroy(Object.assign(new Error(`nothing moved for ${timeout} ms`), { code: 'ETIMEDOUT' })));
      outgoing.on('error', reject);
      outgoing.on('response', resolve);
      outgoing.end(body);
    });
  }
}

async function bodyOf(response: IncomingMessage): Promise<Buffer> {
  const parts: Buffer[] = [];
  let bytes = 0;
  const whole = response.statusCode! <= 299;
  for await (const part of response as AsyncIterable<Buffer>) {
    bytes += part.byteLength;
    if (whole || bytes <= ERROR_BYTES) parts.push(part);
  }
  return Buffer.concat(parts);
}
