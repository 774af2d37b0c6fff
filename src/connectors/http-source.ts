// The webhook source: records that others POST.
//
// Who owns what: requests are decoded where they arrive and wait in a bounded queue (`Inbox`); `read` takes from there. One instance listens, whatever the parallelism.
//
// A request is answered when its records stand in the queue (`acknowledge: 'received'`, 202), or when a completed checkpoint has them (`'checkpoint'`, 200): only then
// the sender may forget them. What was not answered well the sender must send again, which may be once too often, unless it names its requests (`idempotency`).
//
// Invariants:
//  H1  A request is taken whole or not at all: its records, letters and key go together, in one batch of the source.
//  H2  The position counts requests that were handed over, and has the keys of these and of no others: what a checkpoint knows of keys it knows of records too.
//  H3  Nobody waits for ever: where the attempt ends, or `answerWithin` is over, a waiting request is answered 503.
//  H4  The body is bounded before it is read, and before it is unpacked. What the secret did not sign is not decoded.

import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';
import { asError, MillraceError, messageOf } from '../errors.ts';
import type { Source, SourceBatch } from '../graph/source.ts';
import { type Io, systemIo } from '../runtime/io.ts';
import { Arrivals } from './arrivals.ts';
import { type Format, isFormatMisuse, json, lineCodecOf, prepared } from './formats.ts';
import { decodeFrames, decodeLines, preparedFrames } from './framing.ts';
import { type ListeningAddress, listening } from './listening.ts';
import { type KeyMarks, SeenKeys } from './seen-keys.ts';
import { type BodySignature, BodySigner } from './signed-body.ts';

/** What `http.source()` takes. */
export interface HttpSourceOptions<T> {
  /** 0 takes a free one. */
  port: number;
  /** Where requests are POSTed to: `/orders`. */
  path: string;
  /** 127.0.0.1 by default: nobody else reaches it. */
  host?: string;
  /** Of a body; json() by default. */
  format?: Format<T>;
  /** Every body is many records, framed as in files: by line feed, or by their lengths. False by default: then those of type application/x-ndjson are. */
  batch?: boolean;
  /** When a request is answered: 'received' by default. 'checkpoint' needs checkpoints. */
  acknowledge?: 'received' | 'checkpoint';
  /** Milliseconds after which a request that waits for its checkpoint, or for room, is answered 503; a minute by default. */
  answerWithin?: number;
  /** Of a body, and of what it unpacks to; 1 MiB by default. Longer ones are answered 413. */
  maxBytes?: number;
  /** Requests that wait to be taken; 1,024 by default. Beyond, they are answered 429. */
  capacity?: number;
  /** Bodies must be signed; those that are not are answered 401. */
  signature?: BodySignature;
  /** The header that names a request: one of a name that was taken is answered as that was, and not taken again. */
  idempotency?: { header?: string /** How many names are remembered, 10,000 by default. */; remember?: number };
  /** What does not decode is kept as a dead letter and answered as everything else ('keep', by default), or answered 400 and not kept ('refuse'). */
  undecodable?: 'keep' | 'refuse';
  /** Told the address when it listens. */
  onListening?(address: ListeningAddress & { readonly url: string }): void;
}

/** How many requests were handed over, and the names of the newest. */
export interface HttpPosition {
  readonly requests: number;
  readonly keys?: KeyMarks;
}

interface Letter {
  readonly record: unknown;
  readonly error: unknown;
}

interface Taken<T> {
  readonly values: readonly T[];
  readonly letters: readonly Letter[];
  readonly at: number;
  readonly key: string | undefined;
  /** Its number among all that were handed over. */
  number: number | undefined;
  /** Set while somebody waits for it to be in a checkpoint. */
  readonly waiting: ((answered: 'stored' | 'ended') => void)[];
}

interface Answer {
  readonly status: number;
  readonly body: Readonly<Record<string, unknown>>;
  readonly headers?: Readonly<Record<string, string>>;
}

const SPLIT = 'http';
const RETRY_LATER = { 'retry-after': '1' };
const unzipped = promisify(gunzip);

export function httpSource<T>(options: HttpSourceOptions<T>, io: Io = systemIo()): Source<T, string, HttpPosition> {
  const settings = checked(options);
  let current: Inbox<T> | undefined;
  return {
    bounded: false,
    splits: async () => [SPLIT],
    splitId: () => SPLIT,
    async *read(_, from, context) {
      const { uid, signal, log } = context;
      const inbox = new Inbox<T>(settings, from, io);
      current = inbox;
      const server = createServer((request, response) => void inbox.serve(request, response));
      // Between two bodies of one sender.
      server.keepAliveTimeout = 65_000;
      const end = (): void => inbox.end();
      signal.addEventListener('abort', end);
      if (signal.aborted) end();
      try {
        const address = await listening(server, { host: settings.host, port: settings.port }, context, io);
        if (address === undefined) return;
        const host = address.host.includes(':') ? `[${address.host}]` : address.host;
        const url = `http://${host}:${address.port}${settings.path}`;
        log.info({ uid, ...address }, `The source '${uid}' takes POST ${url}.`);
        options.onListening?.({ ...address, url });
        for (;;) {
          const taken = await inbox.take();
          if (taken === undefined) return;
          for (const { letters } of taken) for (const { record, error } of letters) context.deadLetter(record, error);
          const batch: SourceBatch<T, HttpPosition> = {
            values: taken.flatMap(({ values }) => values),
            timestamps: taken.flatMap(({ values, at }) => values.map(() => at)),
            position: inbox.handedOver(taken),
          };
          yield batch;
        }
      } finally {
        signal.removeEventListener('abort', end);
        inbox.end();
        server.close();
        // Answers that were just written have a turn to leave.
        setImmediate(() => server.closeAllConnections());
      }
    },
    async onCheckpointComplete(positions) {
      const stored = positions.get(SPLIT);
      if (stored !== undefined) current?.stored(stored.requests);
    },
  };
}

type Settings<T> = Required<
  Pick<HttpSourceOptions<T>, 'port' | 'path' | 'host' | 'format' | 'batch' | 'acknowledge' | 'answerWithin' | 'maxBytes' | 'capacity' | 'undecodable'>
> & {
  readonly signer: BodySigner | undefined;
  readonly keyHeader: string | undefined;
  readonly remember: number;
};

function checked<T>(options: HttpSourceOptions<T>): Settings<T> {
  const { port, path, host = '127.0.0.1', format = json() as Format<T>, batch = false, acknowledge = 'received', answerWithin = 60_000 } = options;
  const { maxBytes = 1 << 20, capacity = 1024, undecodable = 'keep', signature, idempotency } = options;
  const refuse = (what: string, todo: string): never => {
    throw new MillraceError('OPTION_INVALID', `${what} of http.source() means nothing.`, { todo });
  };
  if (!Number.isInteger(port) || port < 0 || port > 65_535) refuse(`The port ${port}`, 'Give one up to 65535, or 0 for a free one.');
  if (typeof path !== 'string' || !path.startsWith('/') || path.includes('?'))
    refuse(`The path '${path}'`, 'Give one that begins with a slash, without a query.');
  if (acknowledge !== 'received' && acknowledge !== 'checkpoint') refuse(`acknowledge: '${acknowledge}'`, "Give 'received' or 'checkpoint'.");
  if (undecodable !== 'keep' && undecodable !== 'refuse') refuse(`undecodable: '${undecodable}'`, "Give 'keep' or 'refuse'.");
  for (const [name, number] of Object.entries({ answerWithin, maxBytes, capacity, remember: idempotency?.remember ?? 1 }))
    if (!(number > 0)) refuse(`${name}: ${number}`, 'Give a number above 0.');
  return {
    port,
    path,
    host,
    format,
    batch,
    acknowledge,
    answerWithin,
    maxBytes,
    capacity,
    undecodable,
    signer: signature === undefined ? undefined : new BodySigner(signature),
    keyHeader: idempotency === undefined ? undefined : (idempotency.header ?? 'idempotency-key').toLowerCase(),
    remember: idempotency?.remember ?? 10_000,
  };
}

/** The requests of one read: those that wait to be taken, and those that wait for a checkpoint. */
class Inbox<T> {
  readonly #settings: Settings<T>;
  readonly #io: Io;
  readonly #queue: Arrivals<Taken<T>>;
  #queued = 0;
  /** Named requests that are neither forgotten nor known to be stored. */
  readonly #named = new Map<string, Taken<T>>();
  readonly #keys: SeenKeys | undefined;
  /** Handed over and waited for, oldest first. */
  #unstored: Taken<T>[] = [];
  /** All whose answer waits for a checkpoint. */
  readonly #waiting = new Set<(answered: 'stored' | 'ended') => void>();
  #requests: number;
  #ended = false;
  /** A format that cannot be used fails the source, not the sender. */
  #failure: { readonly error: unknown } | undefined;

  constructor(settings: Settings<T>, from: HttpPosition | undefined, io: Io) {
    this.#settings = settings;
    this.#io = io;
    this.#queue = new Arrivals(settings.capacity);
    this.#requests = from?.requests ?? 0;
    this.#keys = settings.keyHeader === undefined ? undefined : new SeenKeys(settings.remember, from?.keys);
  }

  // ── the side of `read` ──

  /** Undefined: it has ended. */
  async take(): Promise<readonly Taken<T>[] | undefined> {
    if (this.#ended) return undefined;
    const taken = await this.#queue.take();
    if (this.#failure !== undefined) throw this.#failure.error;
    return this.#ended || taken.length === 0 ? undefined : taken;
  }

  handedOver(taken: readonly Taken<T>[]): HttpPosition {
    this.#queued -= taken.length;
    for (const each of taken) {
      this.#requests += 1;
      each.number = this.#requests;
      if (each.key !== undefined) this.#keys?.add(each.key);
      if (this.#settings.acknowledge === 'checkpoint') this.#unstored.push(each);
      else if (each.key !== undefined) this.#named.delete(each.key);
    }
    return this.#keys === undefined ? { requests: this.#requests } : { requests: this.#requests, keys: this.#keys.marks };
  }

  stored(requests: number): void {
    let stored = 0;
    for (; stored < this.#unstored.length && this.#unstored[stored]!.number! <= requests; stored += 1) {
      const { key, waiting } = this.#unstored[stored]!;
      if (key !== undefined) this.#named.delete(key);
      for (const answer of waiting) answer('stored');
    }
    this.#unstored = this.#unstored.slice(stored);
  }

  /** Whoever waits is told to come again. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#queue.end();
    for (const answer of [...this.#waiting]) answer('ended');
  }

  // ── the side of requests ──

  async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    let answer: Answer;
    try {
      answer = await this.#answer(request);
    } catch (error) {
      if (isFormatMisuse(error)) {
        this.#failure ??= { error };
        this.#queue.end();
      }
      if (request.destroyed && !request.complete) return void response.destroy();
      answer = { status: 503, body: { error: messageOf(error) }, headers: RETRY_LATER };
    }
    if (response.destroyed) return;
    const body = Buffer.from(JSON.stringify(answer.body));
    // A body that was not read to its end cannot be followed by another request.
    const over = !request.complete ? { connection: 'close' } : {};
    response.writeHead(answer.status, { 'content-type': 'application/json', 'content-length': body.length, ...over, ...answer.headers }).end(body);
  }

  async #answer(request: IncomingMessage): Promise<Answer> {
    const { path, signer, keyHeader, maxBytes, undecodable } = this.#settings;
    if (this.#ended) return unavailable();
    if (new URL(request.url ?? '/', 'http://localhost').pathname !== path) return { status: 404, body: { error: 'nothing is taken here' } };
    if (request.method !== 'POST') return { status: 405, body: { error: 'only POST' }, headers: { allow: 'POST' } };
    if (this.#queued >= this.#settings.capacity) return busy();
    const packed = await bodyOf(request, maxBytes);
    if (packed === undefined) return { status: 413, body: { error: `the body has more than ${maxBytes} bytes` } };
    if (signer !== undefined && !signer.accepts(request.headers[signer.header], packed))
      return { status: 401, body: { error: 'the signature is missing or wrong' } };
    let key: string | undefined;
    if (keyHeader !== undefined) {
      const given = request.headers[keyHeader];
      if (typeof given === 'string' && given !== '') key = given;
      const same = key === undefined ? undefined : this.#named.get(key);
      if (same !== undefined) return this.#answered(same, true);
      if (key !== undefined && this.#keys!.has(key)) return { status: this.#settings.acknowledge === 'received' ? 202 : 200, body: { repeated: true } };
    }
    let body: Buffer;
    switch (request.headers['content-encoding'] ?? 'identity') {
      case 'identity':
        body = packed;
        break;
      case 'gzip':
        try {
          body = await unzipped(packed, { maxOutputLength: maxBytes });
        } catch (error) {
          const long = (error as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE';
          return long
            ? { status: 413, body: { error: `the body unpacks to more than ${maxBytes} bytes` } }
            : { status: 400, body: { error: 'the body is no gzip' } };
        }
        break;
      default:
        return { status: 415, body: { error: 'the body is packed in a way that is not known here' }, headers: { 'accept-encoding': 'gzip' } };
    }
    const { values, letters } = await this.#decoded(body, request.headers['content-type'] ?? '');
    if (letters.length > 0 && undecodable === 'refuse') return { status: 400, body: { error: messageOf(letters[0]!.error), undecodable: letters.length } };
    if (this.#ended) return unavailable();
    if (this.#queued >= this.#settings.capacity) return busy();
    // Another of the same name may have come while this one was read.
    const same = key === undefined ? undefined : this.#named.get(key);
    if (same !== undefined) return this.#answered(same, true);
    const taken: Taken<T> = { values, letters, at: this.#io.clock.now(), key, number: undefined, waiting: [] };
    if (key !== undefined) this.#named.set(key, taken);
    this.#queued += 1;
    this.#queue.push(taken);
    return this.#answered(taken, false);
  }

  async #answered(taken: Taken<T>, repeated: boolean): Promise<Answer> {
    const told = {
      accepted: taken.values.length,
      ...(taken.letters.length === 0 ? {} : { undecodable: taken.letters.length }),
      ...(repeated ? { repeated: true } : {}),
    };
    if (this.#settings.acknowledge === 'received') return { status: 202, body: told };
    const outcome = await new Promise<'stored' | 'ended'>((resolve) => {
      const settle = (answered: 'stored' | 'ended'): void => {
        this.#io.clock.clearTimeout(timer);
        this.#waiting.delete(settle);
        resolve(answered);
      };
      const timer = this.#io.clock.setTimeout(() => settle('ended'), this.#settings.answerWithin);
      taken.waiting.push(settle);
      this.#waiting.add(settle);
      if (this.#ended) settle('ended');
    });
    return outcome === 'stored' ? { status: 200, body: told } : unavailable();
  }

  async #decoded(body: Buffer, contentType: string): Promise<{ readonly values: T[]; readonly letters: Letter[] }> {
    const { format, batch } = this.#settings;
    const letters: Letter[] = [];
    const onBad = (record: Uint8Array, error: Error): void => void letters.push({ record, error });
    const codec = lineCodecOf(format);
    const many = batch || (codec !== undefined && /^application\/(x-ndjson|jsonl|x-jsonlines)\b/.test(contentType));
    if (many && codec === undefined) {
      await preparedFrames(body, format);
      return { values: decodeFrames(body, format, onBad), letters };
    }
    if (many && codec !== undefined) {
      if (!codec.header) return { values: decodeLines(body, codec, codec.reader(undefined), onBad), letters };
      const end = body.indexOf(10);
      if (end < 0) return { values: [], letters };
      const header = body.toString('utf8', 0, end > 0 && body[end - 1] === 13 ? end - 1 : end);
      return { values: decodeLines(body.subarray(end + 1), codec, codec.reader(header), onBad), letters };
    }
    await prepared(format, [body]);
    try {
      return { values: [format.decode(body)], letters };
    } catch (error) {
      if (isFormatMisuse(error)) throw error;
      onBad(new Uint8Array(body), asError(error));
      return { values: [], letters };
    }
  }
}

function busy(): Answer {
  return { status: 429, body: { error: 'too many requests wait' }, headers: RETRY_LATER };
}

function unavailable(): Answer {
  return { status: 503, body: { error: 'the records are not known to be stored; send them again' }, headers: RETRY_LATER };
}

/** Undefined: it is longer than that. */
async function bodyOf(request: IncomingMessage, maxBytes: number): Promise<Buffer | undefined> {
  if (Number(request.headers['content-length'] ?? 0) > maxBytes) return undefined;
  const parts: Buffer[] = [];
  let bytes = 0;
  // Not by an iterator: leaving it would destroy the connection before the answer.
  return new Promise((resolve, reject) => {
    request.on('data', (part: Buffer) => {
      bytes += part.length;
      if (bytes <= maxBytes) parts.push(part);
      else {
        request.pause();
        resolve(undefined);
      }
    });
    request.on('end', () => resolve(Buffer.concat(parts)));
    request.on('error', reject);
    request.on('close', () => reject(new Error('the connection broke off')));
  });
}
