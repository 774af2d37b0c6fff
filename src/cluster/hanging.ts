// Where a thread hangs whose event loop gets no turn: asked of V8 over the inspector of Node, which interrupts whatever runs. Until it is asked it costs nothing.
//
// Who owns what: this thread asks about another one of its process, and lets it go on; what becomes of it decides whoever watches it.
//
// Invariants:
//  V1  A thread that answers nothing, since it hangs in something that V8 does not interrupt, is given up after ASK_MS. The session is closed in any case, and a thread
//      that was held goes on before that: one that is held cannot be ended.
//  V2  What is read of records is text, and short; reading it runs no longer than READ_MS.

import { basename } from 'node:path';
import type { Worker } from 'node:worker_threads';
import { DOING } from '../runtime/doing.ts';

const ASK_MS = 10_000;
const READ_MS = 1000;
const TEXT_MAX = 200;

/** As far as it could be seen. */
export interface Hanging {
  readonly task: string | undefined;
  /** The uid of the operator. */
  readonly operator: string | undefined;
  /** `function (file:line)` of the program, the innermost. */
  readonly at: string | undefined;
  readonly key: string | undefined;
  readonly record: string | undefined;
}

interface Frame {
  readonly callFrameId: string;
  readonly functionName: string;
  readonly location: { readonly scriptId: string; readonly lineNumber: number };
}

/** Frames of Node and of this library say less than those of the program. */
const HERE = new URL('../../', import.meta.url).href;
const isProgram = (url: string): boolean => /^(file:|\/)/.test(url) && !(url.startsWith(`${HERE}src/`) || url.startsWith(`${HERE}actors/`));

/** Of the record in hand, where a generated chain (runtime/chain.ts) is among what runs. */
const IN_HAND = `(() => {
  const text = (value) => { try { return String(JSON.stringify(value)).slice(0, ${TEXT_MAX}); } catch { return String(value).slice(0, ${TEXT_MAX}); } };
  return JSON.stringify({ record: text(values[i]), key: keys === undefined || keys[i] === undefined ? undefined : text(keys[i]) });
})()`;
const TASK = `JSON.stringify(this?.[Symbol.for(${JSON.stringify(DOING.description)})]?.())`;

/** Undefined: it cannot be known. */
export async function hangsIn(thread: Worker): Promise<Hanging | undefined> {
  const talk = await Talk.with(thread).catch(() => undefined);
  if (talk === undefined) return undefined;
  let late: NodeJS.Timeout | undefined;
  const given = new Promise<undefined>((resolve) => {
    late = setTimeout(() => resolve(undefined), ASK_MS);
  });
  try {
    return await Promise.race([look(talk), given]);
  } finally {
    clearTimeout(late);
    await talk.close();
  }
}

/** A sentence's end about it; empty where nothing is known. */
export function hangingText(hanging: Hanging | undefined): string {
  if (hanging === undefined) return '';
  const { task, operator, at, key, record } = hanging;
  const where = [
    operator === undefined ? '' : ` the operator '${operator}'${task === undefined ? '' : ` (${task})`} hangs`,
    at === undefined ? '' : ` in ${at}`,
    key === undefined ? '' : `, key ${key}`,
    record === undefined ? '' : `, record ${record}`,
  ].join('');
  return where === '' ? '' : `:${where}`;
}

async function look(talk: Talk): Promise<Hanging> {
  const frames = await talk.paused();
  const urls = frames.map(({ location }) => talk.urlOf(location.scriptId));
  const inmost = frames[Math.max(0, urls.findIndex(isProgram))];
  const url = inmost === undefined ? '' : talk.urlOf(inmost.location.scriptId);
  const found: { task?: string; operator?: string; key?: string; record?: string } = {};
  for (const frame of frames) {
    if (found.record === undefined && /^(run|runRight)$/.test(frame.functionName)) Object.assign(found, await talk.read(frame, IN_HAND));
    if (found.task === undefined) Object.assign(found, await talk.read(frame, TASK));
    if (found.task !== undefined) break;
  }
  return {
    task: found.task,
    operator: found.operator,
    at: inmost === undefined ? undefined : `${inmost.functionName || 'a function'} (${basename(url)}:${inmost.location.lineNumber + 1})`,
    key: found.key,
    record: found.record,
  };
}

/** With one thread, by the session of the main thread. */
class Talk {
  readonly #post: (method: string, params: object) => void;
  readonly #disconnect: () => void;
  readonly #asked = new Map<number, (result: unknown) => void>();
  readonly #urls = new Map<string, string>();
  readonly #paused: Promise<readonly Frame[]>;
  #asks = 0;

  static async with(thread: Worker): Promise<Talk> {
    const { Session } = await import('node:inspector');
    const session = new Session();
    session.connect();
    // Its id is the inspector's own; the thread's stands in its title: `[worker 3] name`.
    const wanted = new RegExp(`worker ${thread.threadId}\\b`, 'i');
    const talks: Talk[] = [];
    session.on('NodeWorker.receivedMessageFromWorker', ({ params: { message } }) => talks[0]?.heard(JSON.parse(message)));
    const sessionId = await new Promise<string | undefined>((resolve) => {
      session.on('NodeWorker.attachedToWorker', ({ params }) => {
        if (wanted.test(params.workerInfo.title)) setImmediate(() => resolve(params.sessionId));
      });
      session.post('NodeWorker.enable', { waitForDebuggerOnStart: false }, (error) => {
        if (error !== null) setImmediate(() => resolve(undefined));
      });
      setTimeout(resolve, READ_MS, undefined).unref();
    });
    if (sessionId === undefined) {
      session.disconnect();
      throw new Error('The thread has ended.');
    }
    const talk = new Talk(
      (method, params) => session.post(method, { sessionId, ...params }),
      () => session.disconnect(),
    );
    talks.push(talk);
    return talk;
  }

  private constructor(post: (method: string, params: object) => void, disconnect: () => void) {
    this.#post = post;
    this.#disconnect = disconnect;
    this.#paused = new Promise((resolve) => this.#asked.set(0, resolve as (result: unknown) => void));
  }

  /** In a turn of its own: behind what the inspector calls, promises are not looked after. */
  heard(said: { id?: number; method?: string; params?: unknown; result?: unknown }): void {
    setImmediate(() => this.#heard(said));
  }

  #heard(said: { id?: number; method?: string; params?: unknown; result?: unknown }): void {
    const { id, method, params, result } = said;
    if (id !== undefined) this.#asked.get(id)?.(result);
    else if (method === 'Debugger.paused') this.#asked.get(0)!((params as { callFrames: readonly Frame[] }).callFrames);
    else if (method === 'Debugger.scriptParsed') {
      const script = params as { scriptId: string; url: string };
      this.#urls.set(script.scriptId, script.url);
    }
  }

  urlOf(script: string): string {
    return this.#urls.get(script) ?? '';
  }

  paused(): Promise<readonly Frame[]> {
    void this.#ask('Debugger.enable', {});
    void this.#ask('Debugger.pause', {});
    return this.#paused;
  }

  /** V2. What cannot be read in that frame is nothing. */
  async read({ callFrameId }: Frame, expression: string): Promise<object> {
    const read = (await this.#ask('Debugger.evaluateOnCallFrame', { callFrameId, expression, returnByValue: true, silent: true, timeout: READ_MS })) as
      | { readonly result?: { readonly type: string; readonly value?: unknown } }
      | undefined;
    const value = read?.result?.value;
    return typeof value === 'string' ? (JSON.parse(value) as object) : {};
  }

  #ask(method: string, params: object): Promise<unknown> {
    this.#asks += 1;
    const id = this.#asks;
    this.#post('NodeWorker.sendMessageToWorker', { message: JSON.stringify({ id, method, params }) });
    return new Promise((resolve) => this.#asked.set(id, resolve));
  }

  /** V1. */
  async close(): Promise<void> {
    void this.#ask('Debugger.resume', {});
    const over = this.#ask('Debugger.disable', {});
    let late: NodeJS.Timeout | undefined;
    await Promise.race([
      over,
      new Promise<void>((resolve) => {
        late = setTimeout(resolve, READ_MS);
      }),
    ]);
    clearTimeout(late);
    this.#disconnect();
  }
}
