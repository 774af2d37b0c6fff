// Questions between workers, and their answers: data over the connection that the two have.
//
// Who owns what: whoever asks keeps the question until it is answered, given up, or the connection is lost; what is answered is given in from outside.
//
// Invariants:
//  K1  A question settles once: with the answer, with the error that the other one answers (its code, sentence and cause cross), or with LEADER_UNREACHABLE where no
//      answer comes. What became of it over there is not known then; whether it may be asked again is for the asker to say.
//      A question goes down with the connection that it went over: what replaces that has neither it nor its answer.
//  K2  An answer that nobody waits for any more is dropped.

import { asError, codeOf, MillraceError } from '../errors.ts';
import { type ErrorData, errorData, errorOf } from './host-mail.ts';
import type { Member } from './zookeeper/membership.ts';

/** What a worker needs to be known by. */
export type Callee = Pick<Member, 'id' | 'address'>;

export type CallMail =
  | { readonly kind: 'call'; readonly call: number; readonly method: string; readonly args: unknown }
  | { readonly kind: 'answer'; readonly call: number; readonly value: unknown }
  | { readonly kind: 'refused'; readonly call: number; readonly error: ErrorData };

export interface CallsOptions {
  /** To that worker, also to this one; gives the connection that it went over, and rejects where it cannot be reached. */
  readonly tell: (worker: string, message: CallMail) => Promise<unknown>;
  /** Resolves when that connection to it stands no more, also where another one does, and when the signal aborts. */
  readonly lost: (worker: string, over: unknown, signal: AbortSignal) => Promise<void>;
  readonly answer: (method: string, args: unknown, worker: string) => Promise<unknown>;
}

export interface AskOptions {
  /** Gives the question up. */
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds; default: as long as the connection stands. */
  readonly timeout?: number | undefined;
}

interface Asked {
  readonly worker: string;
  resolve(value: unknown): void;
  reject(error: Error): void;
}

/** No answer came (K1), which is another thing than an answer that says the same. */
export class Unanswered extends MillraceError {
  constructor(why: string, cause?: unknown) {
    super('LEADER_UNREACHABLE', why, { todo: 'Try again: another replica may lead by now.', cause });
  }
}

export class Calls {
  readonly #options: CallsOptions;
  readonly #asked = new Map<number, Asked>();
  #next = 1;
  #closed: Error | undefined;

  constructor(options: CallsOptions) {
    this.#options = options;
  }

  async ask(to: Callee, method: string, args: unknown, { signal, timeout }: AskOptions = {}): Promise<unknown> {
    if (this.#closed !== undefined) throw this.#closed;
    const call = this.#next++;
    const over = new AbortController();
    const giveUp = (): void => over.abort(signal?.reason);
    const timer = timeout === undefined ? undefined : setTimeout(() => over.abort(new Error(`it took longer than ${timeout} ms`)), timeout);
    signal?.addEventListener('abort', giveUp, { once: true });
    if (signal?.aborted === true) giveUp();
    try {
      return await new Promise<unknown>((resolve, reject) => {
        const asked: Asked = { worker: to.id, resolve, reject };
        this.#asked.set(call, asked);
        const unanswered = (why: string, cause?: unknown): void => reject(new Unanswered(`${to.id} (${to.address}) gives no answer: ${why}.`, cause));
        const aborted = (): void => unanswered(asError(over.signal.reason ?? new Error('it was given up')).message);
        if (over.signal.aborted) return aborted();
        over.signal.addEventListener('abort', aborted, { once: true });
        this.#send(to, { kind: 'call', call, method, args }, over.signal, unanswered).catch(reject);
      });
    } finally {
      this.#asked.delete(call);
      clearTimeout(timer);
      signal?.removeEventListener('abort', giveUp);
      // What still waits for a connection.
      over.abort();
    }
  }

  async #send(to: Callee, mail: CallMail & { kind: 'call' }, signal: AbortSignal, lost: (why: string, cause?: unknown) => void): Promise<void> {
    let over: unknown;
    try {
      over = await this.#options.tell(to.id, mail);
    } catch (error) {
      return lost(asError(error).message, error);
    }
    if (signal.aborted) return;
    await this.#options.lost(to.id, over, signal);
    if (!signal.aborted) lost('the connection is lost');
  }

  /** What came from a worker. */
  heard(worker: string, mail: CallMail): void {
    if (mail.kind === 'call') {
      this.#answer(worker, mail);
      return;
    }
    const asked = this.#asked.get(mail.call);
    // K2.
    if (asked === undefined || asked.worker !== worker) return;
    if (mail.kind === 'answer') asked.resolve(mail.value);
    else asked.reject(errorOf(mail.error));
  }

  #answer(worker: string, { call, method, args }: CallMail & { kind: 'call' }): void {
    const { tell, answer } = this.#options;
    answer(method, args, worker)
      .then((value) => tell(worker, { kind: 'answer', call, value }))
      // What cannot be sent is an answer too.
      .catch((error) => tell(worker, { kind: 'refused', call, error: errorData(error) }))
      .catch(() => {
        // Whoever asked cannot be reached any more, and sees that by itself.
      });
  }

  /** Every question that is open, and every later one, fails with that. */
  close(error: Error): void {
    this.#closed ??= error;
    for (const asked of [...this.#asked.values()]) asked.reject(this.#closed);
  }
}

/** Whether it is mail of this file. */
export function isCallMail(message: unknown): message is CallMail {
  const { kind, call } = (message ?? {}) as { kind?: unknown; call?: unknown };
  return typeof call === 'number' && (kind === 'call' || kind === 'answer' || kind === 'refused');
}

/** Whether whoever leads by now is to be asked instead; `unknown`: what became of the question is not known. */
export function whyUnanswered(error: unknown): 'unknown' | 'not done' | undefined {
  const code = codeOf(error);
  if (code === 'LEADER_UNREACHABLE') return 'unknown';
  return code === 'LEADER_DEPOSED' || code === 'CLUSTER_LEFT' || code === 'JOB_NOT_FOUND' ? 'not done' : undefined;
}
