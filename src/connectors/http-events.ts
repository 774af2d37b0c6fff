// The source of server-sent events: a request that stays open, and is made again from the last id where it is lost.
//
// The position is the id of the last event: where the server keeps its events and heeds `last-event-id`, each comes once, whatever crashes. A server that gives no ids,
// or forgets, gives only what happens while somebody listens.
//
// Invariants:
//  V1  A batch is what one block of the response brought; the position behind it is the id of its last event.
//  V2  The server is read as fast as its events are taken.
//  V3  Away for longer than `giveUpAfter`: CONNECTION_FAILED. A refusal that another try would not change: HTTP_REFUSED at once. 204: the source ends, as the
//      standard says.

import { asError, MillraceError } from '../errors.ts';
import type { ReadContext, Source, SourceBatch } from '../graph/source.ts';
import { type Io, systemIo } from '../runtime/io.ts';
import { DEFAULT_WAITS, waitBefore } from '../time/backoff.ts';
import { EventStream } from './event-stream.ts';
import { type Format, isFormatMisuse, json, prepared } from './formats.ts';
import { RECORD_BYTES_MAX } from './framing.ts';
import { RETRIED_STATUSES, reasonOf, retryAfterMs } from './http-answers.ts';
import { pause } from './pause.ts';

/** What `http.events()` listens to. */
export interface HttpEventsOptions<T> {
  url: string;
  /** Of the data of an event; json() by default. */
  format?: Format<T>;
  /** Types of events; all by default. Those of no type are 'message'. */
  types?: readonly string[];
  /** Sent with each request, such as `authorization`. */
  headers?: Record<string, string>;
  /** The id to begin behind; by default the server decides. */
  lastEventId?: string;
  /** How long, in milliseconds, the server may be away before the job fails with CONNECTION_FAILED; a minute by default, Infinity: for ever. */
  giveUpAfter?: number;
}

/** Behind which event it goes on. */
export interface EventsPosition {
  readonly id: string;
}

export function httpEvents<T>(options: HttpEventsOptions<T>, io: Io = systemIo()): Source<T, string, EventsPosition> {
  const { url, giveUpAfter = 60_000 } = options;
  if (!/^https?:\/\//.test(String(url)) || !URL.canParse(url))
    throw new MillraceError('OPTION_INVALID', `'${url}' is no url of http.events().`, { todo: 'Give one that begins with http:// or https://.' });
  if (!(giveUpAfter >= 0))
    throw new MillraceError('OPTION_INVALID', `giveUpAfter of http.events() is ${giveUpAfter}.`, { todo: 'Give milliseconds, or Infinity.' });
  const format = options.format ?? (json() as Format<T>);
  return {
    bounded: false,
    splits: async () => [url],
    splitId: (split) => split,
    read: (_, from, context) => listened(options, format, from, context, io),
  };
}

async function* listened<T>(
  options: HttpEventsOptions<T>,
  format: Format<T>,
  from: EventsPosition | undefined,
  context: ReadContext,
  io: Io,
): AsyncGenerator<SourceBatch<T, EventsPosition>> {
  const { url, types, headers = {}, giveUpAfter = 60_000 } = options;
  const { uid, signal, log } = context;
  const wanted = types === undefined ? undefined : new Set(types);
  let lastId = from?.id ?? options.lastEventId ?? '';
  let retryMs: number | undefined;
  let awaySince: number | undefined;
  let tried = 0;
  while (!signal.aborted) {
    let failure: string;
    let cause: unknown;
    let wait = 0;
    try {
      const response = await fetch(url, {
        headers: { accept: 'text/event-stream', 'cache-control': 'no-store', ...headers, ...(lastId === '' ? {} : { 'last-event-id': encodedId(lastId) }) },
        signal,
      });
      if (response.status === 204) return void (await response.body?.cancel());
      const type = response.headers.get('content-type') ?? '';
      if (response.status === 200 && /^text\/event-stream\b/.test(type)) {
        awaySince = undefined;
        const stream = new EventStream(lastId);
        const decoder = new TextDecoder();
        for await (const block of response.body as AsyncIterable<Uint8Array>) {
          const all = stream.push(decoder.decode(block, { stream: true }));
          if (stream.pending > RECORD_BYTES_MAX) throw tooLarge(url, uid);
          retryMs = stream.retryMs ?? retryMs;
          if (all.length === 0) continue;
          tried = 0;
          const data = all.filter((event) => wanted === undefined || wanted.has(event.type)).map((event) => Buffer.from(event.data));
          await prepared(format, data);
          // From here to the batch nothing waits: letters go with it.
          const values: T[] = [];
          for (const bytes of data) {
            try {
              values.push(format.decode(bytes));
            } catch (error) {
              if (isFormatMisuse(error)) throw error;
              context.deadLetter(new Uint8Array(bytes), asError(error));
            }
          }
          lastId = all.at(-1)!.id;
          const now = io.clock.now();
          yield { values, timestamps: values.map(() => now), position: { id: lastId } };
          if (signal.aborted) return;
        }
        failure = 'it ended the stream';
      } else {
        const body = (await response.text()).slice(0, 200);
        if (!RETRIED_STATUSES.has(response.status)) {
          const what = response.status === 200 ? `its answer is ${type === '' ? 'of no type' : type}, and no text/event-stream` : `${response.status} ${body}`;
          throw new MillraceError('HTTP_REFUSED', `${url} gives no events: ${what}.`, { todo: 'Correct the url or the credentials.', uid });
        }
        failure = `it answered ${response.status}`;
        wait = retryAfterMs(response.headers.get('retry-after'), io.clock.now());
      }
    } catch (error) {
      if (signal.aborted) return;
      // What comes of decoding is none of the connection.
      if (error instanceof MillraceError) throw error;
      failure = reasonOf(error);
      cause = error;
    }
    tried += 1;
    awaySince ??= io.clock.now();
    const away = io.clock.now() - awaySince;
    if (away >= giveUpAfter && failure !== 'it ended the stream')
      throw new MillraceError('CONNECTION_FAILED', `${url} cannot be reached: ${failure}.`, { todo: 'Does it run, and is the url right?', uid, cause });
    wait = Math.min(Math.max(wait, retryMs ?? 0, waitBefore(tried, DEFAULT_WAITS, io.random())), Math.max(giveUpAfter - away, 0));
    log.warn({ uid, failure }, `${url} gives no events at present; it is asked again in ${Math.ceil(wait)} ms.`);
    await pause(wait, signal, io.clock);
  }
}

/** Headers hold bytes: an id is sent as UTF-8. */
function encodedId(id: string): string {
  return Buffer.from(id, 'utf8').toString('latin1');
}

function tooLarge(url: string, uid: string): MillraceError {
  return new MillraceError('RECORD_TOO_LARGE', `An event of ${url} is longer than ${RECORD_BYTES_MAX} bytes.`, {
    todo: 'Is that the url of an event stream?',
    uid,
  });
}
