// A host that a worker runs for a leader: in the worker's own thread, or in one of its own, to which the main thread relays what it does not read.
//
// Invariants:
//  W1  A host ends when its leader is gone. One in a thread that does not is ended END_MS later.
//  W2  A thread that gives no sign of life for STALL_MS is ended at once, and the leader is told where it hangs: nobody else can see that.

import { MessageChannel, MessagePort, Worker as Thread } from 'node:worker_threads';
import { MillraceError, messageOf } from '../errors.ts';
import type { Logger } from '../graph/context.ts';
import { hangsIn } from './hanging.ts';
import { Host, type HostOptions } from './host.ts';
import { stalledThread } from './stalled.ts';
import type { Link } from './transport/link.ts';
import { relay } from './transport/shared-link.ts';
import { threadLink } from './transport/thread-link.ts';

const END_MS = 10_000;
const STALL_MS = 30_000;
const BEAT_MS = 1000;

export interface WorkerHost {
  /** Its end, as far as the leader is meant: closing it ends the host. */
  readonly leader: Link;
  /** Settles when everything has ended. */
  readonly ended: Promise<void>;
  /** Resolves when channels to the host of that number go over this link, the `by`-th one, or over the port of a link. */
  join(peer: number, over: Link | MessagePort, by: number): Promise<void>;
}

export function hostHere(options: HostOptions): WorkerHost {
  const host = new Host(options);
  return {
    leader: options.leader,
    ended: host.ended,
    async join(peer, over, by) {
      host.join(peer, over instanceof MessagePort ? threadLink(over, { peer: `host ${peer}` }) : over, by);
    },
  };
}

export interface ThreadHostOptions {
  readonly number: number;
  /** What the thread runs (src/thread-main.ts), and what it is given. */
  readonly entry: URL;
  readonly data: object;
  readonly leader: Link;
  readonly log: Logger;
  /** Milliseconds without a turn of its event loop after which it is taken for an endless loop; default 30,000. */
  readonly stallMs?: number | undefined;
  /** Why it is about to end before its leader has ended it: told before the link to that is closed. */
  readonly failed: (error: MillraceError) => void;
}

/** Resolves when the module is loaded there. */
export async function hostInThread({ number, entry, data, leader, log, failed, stallMs = STALL_MS }: ThreadHostOptions): Promise<WorkerHost> {
  const { port1, port2 } = new MessageChannel();
  const name = `host-${number}`;
  // The module may look at the arguments that this process was started with.
  const thread = new Thread(entry, { name, argv: process.argv.slice(2), workerData: { ...data, number, leader: port2 }, transferList: [port2] });
  let cause: unknown;
  let stalled: MillraceError | undefined;
  let beat: NodeJS.Timeout | undefined;
  thread.on('error', (error) => {
    cause = error;
  });
  const inner = threadLink(port1, { peer: name });
  relay(leader, inner);
  const ended = new Promise<void>((resolve) => thread.once('exit', () => resolve()));
  const lost = (): MillraceError =>
    stalled ?? new MillraceError('HOST_LOST', `The thread of ${name} has ended${cause === undefined ? '' : `: ${messageOf(cause)}`}.`, { cause });
  let leaderIsThere = true;
  // W1.
  void leader.closed.then(() => {
    leaderIsThere = false;
    const late = setTimeout(() => void thread.terminate(), END_MS);
    void ended.then(() => clearTimeout(late));
  });
  let over = false;
  void ended.then(() => {
    over = true;
    clearTimeout(beat);
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
    leader,
    ended,
    async join(peer, link, by) {
      if (over) throw lost();
      let port: MessagePort;
      if (link instanceof MessagePort) port = link;
      else {
        const channel = new MessageChannel();
        relay(link, threadLink(channel.port1, { peer: name }));
        port = channel.port2;
      }
      const joined = said((message) => typeof message === 'object' && message !== null && (message as { joined?: number }).joined === peer);
      thread.postMessage({ peer, port, by }, [port]);
      await orEnded(joined);
    },
  };
}
