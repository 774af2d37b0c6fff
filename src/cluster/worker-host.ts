// A host that a worker runs for a leader: in the worker's own thread, or in one of its own, to which the main thread relays what it does not read.
//
// Invariants:
//  W1  A host ends when its leader lets go of it, or has been lost for `aloneMs` and nobody has gone on with it (host.ts, H3). One in a thread that does not is ended END_MS later.
//  W2  A thread that gives no sign of life for STALL_MS is ended at once, and the leader is told where it hangs: nobody else can see that.

import { MessageChannel, MessagePort, Worker as Thread } from 'node:worker_threads';
import { MillraceError, messageOf } from '../errors.ts';
import type { Logger } from '../graph/context.ts';
import { hangsIn } from './hanging.ts';
import { Host, type HostOptions } from './host.ts';
import { errorOf } from './host-mail.ts';
import { stalledThread } from './stalled.ts';
import type { Standing } from './standing.ts';
import type { ThreadAnswer, ThreadMail } from './thread-mail.ts';
import type { Link } from './transport/link.ts';
import { relay } from './transport/shared-link.ts';
import { threadLink } from './transport/thread-link.ts';

const END_MS = 10_000;
const STALL_MS = 30_000;
const BEAT_MS = 1000;

export interface WorkerHost {
  /** Its end of the link to its leader. Closed in order, the host ends; with an error it goes on without. */
  readonly leader: Link;
  /** Settles when everything has ended. */
  readonly ended: Promise<void>;
  /** Resolves when channels to the host of that number go over this link, the `by`-th one, or over the port of a link. */
  join(peer: number, over: Link | MessagePort, by: number): Promise<void>;
  /** What of it goes on; its leader is one no more. */
  standing(): Promise<Standing>;
  /** Another leader goes on with these parts. Rejects where one of them does not go on. */
  adopt(leader: Link, parts: readonly string[]): Promise<void>;
  /** Whether it has a leader or not. */
  end(): void;
}

export function hostHere(options: HostOptions): WorkerHost {
  const host = new Host(options);
  let { leader } = options;
  return {
    get leader() {
      return leader;
    },
    ended: host.ended,
    async join(peer, over, by) {
      host.join(peer, over instanceof MessagePort ? threadLink(over, { peer: `host ${peer}` }) : over, by);
    },
    async standing() {
      return host.standing();
    },
    async adopt(next, parts) {
      host.adopt(next, parts);
      leader = next;
    },
    end: () => host.end(),
  };
}

export interface ThreadHostOptions {
  readonly number: number;
  /** What the thread runs (src/thread-main.ts), and what it is given. */
  readonly entry: URL;
  readonly data: object;
  readonly leader: Link;
  /** As HostOptions has it. */
  readonly aloneMs?: number | undefined;
  readonly log: Logger;
  /** Milliseconds without a turn of its event loop after which it is taken for an endless loop; default 30,000. */
  readonly stallMs?: number | undefined;
  /** Why it is about to end before its leader has ended it: told before the link to that is closed. */
  readonly failed: (error: MillraceError) => void;
}

/** Resolves when the module is loaded there. */
export async function hostInThread({
  number,
  entry,
  data,
  leader: first,
  aloneMs = 0,
  log,
  failed,
  stallMs = STALL_MS,
}: ThreadHostOptions): Promise<WorkerHost> {
  const { port1, port2 } = new MessageChannel();
  const name = `host-${number}`;
  // The module may look at the arguments that this process was started with.
  const thread = new Thread(entry, { name, argv: process.argv.slice(2), workerData: { ...data, number, leader: port2, aloneMs }, transferList: [port2] });
  let cause: unknown;
  let stalled: MillraceError | undefined;
  let beat: NodeJS.Timeout | undefined;
  thread.on('error', (error) => {
    cause = error;
  });
  const ended = new Promise<void>((resolve) => thread.once('exit', () => resolve()));
  const lost = (): MillraceError =>
    stalled ?? new MillraceError('HOST_LOST', `The thread of ${name} has ended${cause === undefined ? '' : `: ${messageOf(cause)}`}.`, { cause });
  let leader = first;
  let leaderIsThere = false;
  // W1.
  let late: NodeJS.Timeout | undefined;
  const isToEnd = (withinMs: number): void => {
    clearTimeout(late);
    late = setTimeout(() => void thread.terminate(), withinMs);
  };
  const follow = (next: Link, port: MessagePort): void => {
    clearTimeout(late);
    leader = next;
    leaderIsThere = true;
    relay(next, threadLink(port, { peer: name }));
    void next.closed.then((error) => {
      if (leader !== next) return;
      leaderIsThere = false;
      if (!over) isToEnd(END_MS + (error === undefined ? 0 : aloneMs));
    });
  };
  let over = false;
  follow(first, port1);
  void ended.then(() => {
    over = true;
    clearTimeout(beat);
    clearTimeout(late);
    if (cause !== undefined) log.error({ error: messageOf(cause), host: number }, 'A thread of this worker has failed.');
    if (leaderIsThere && cause !== undefined) failed(lost());
    leader.close(lost());
  });
  const said = (is: (message: unknown) => boolean): Promise<void> =>
    new Promise((resolve) => {
      const listen = (message: unknown): void => {
        if (!is(message)) return;
        thread.off('message', listen);
        resolve();
      };
      thread.on('message', listen);
    });
  const orEnded = (answer: Promise<void>): Promise<void> =>
    Promise.race([
      answer,
      ended.then(() => {
        throw cause instanceof Error && 'code' in cause && 'retryable' in cause ? cause : lost();
      }),
    ]);
  /** What the thread answers to that question. */
  const asked = async <T>(question: ThreadMail, transfer: readonly MessagePort[] = []): Promise<T> => {
    if (over) throw lost();
    asks += 1;
    const ask = asks;
    let answer: ThreadAnswer | undefined;
    const answered = said((message) => {
      if ((message as Partial<ThreadAnswer>).ask === ask) answer = message as ThreadAnswer;
      return answer !== undefined;
    });
    thread.postMessage({ ...question, ask }, [...transfer]);
    await orEnded(answered);
    if (answer!.error !== undefined) throw errorOf(answer!.error);
    return answer!.value as T;
  };
  let asks = 0;
  await orEnded(said((message) => message === 'ready'));
  // W2: counted in beats, as a leader does (host-link.ts, L2). While a module is loaded nobody answers; that has its own limit.
  const beatMs = Math.min(BEAT_MS, stallMs / 4);
  let unanswered = 0;
  thread.on('message', (message) => {
    if (message === 'beat') unanswered = 0;
  });
  const watch = (): void => {
    if (over) return;
    unanswered += 1;
    if (unanswered <= stallMs / beatMs) {
      thread.postMessage('beat');
      beat = setTimeout(watch, beatMs);
    } else void end();
  };
  const end = async (): Promise<void> => {
    stalled = stalledThread(`The thread of ${name}`, stallMs, await hangsIn(thread));
    log.error({ error: stalled.sentence, host: number }, 'A thread of this worker gives no answer any more, and is ended.');
    if (leaderIsThere) failed(stalled);
    leader.close(stalled);
    await thread.terminate();
  };
  watch();
  return {
    get leader() {
      return leader;
    },
    ended,
    standing: () => asked({ kind: 'standing' }),
    async adopt(next, parts) {
      const { port1: ours, port2: theirs } = new MessageChannel();
      await asked({ kind: 'adopt', parts, port: theirs }, [theirs]);
      follow(next, ours);
    },
    end() {
      if (over) return;
      thread.postMessage({ kind: 'end' } satisfies ThreadMail);
      isToEnd(END_MS);
    },
    async join(peer, link, by) {
      let port: MessagePort;
      if (link instanceof MessagePort) port = link;
      else {
        const channel = new MessageChannel();
        relay(link, threadLink(channel.port1, { peer: name }));
        port = channel.port2;
      }
      await asked({ kind: 'join', peer, port, by }, [port]);
    },
  };
}
