// A host that a worker runs for a leader: in the worker's own thread, or in one of its own, to which the main thread relays what it does not read.
//
// Invariant W1: a host ends when its leader is gone. One in a thread that does not is ended END_MS later.

import { MessageChannel, MessagePort, Worker as Thread } from 'node:worker_threads';
import { MillraceError, messageOf } from '../errors.ts';
import type { Logger } from '../graph/context.ts';
import { Host, type HostOptions } from './host.ts';
import type { Link } from './transport/link.ts';
import { relay } from './transport/shared-link.ts';
import { threadLink } from './transport/thread-link.ts';

const END_MS = 10_000;

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
}

/** Resolves when the module is loaded there. */
export async function hostInThread({ number, entry, data, leader, log }: ThreadHostOptions): Promise<WorkerHost> {
  const { port1, port2 } = new MessageChannel();
  const name = `host-${number}`;
  // The module may look at the arguments that this process was started with.
  const thread = new Thread(entry, { name, argv: process.argv.slice(2), workerData: { ...data, number, leader: port2 }, transferList: [port2] });
  let cause: unknown;
  thread.on('error', (error) => {
    cause = error;
  });
  const inner = threadLink(port1, { peer: name });
  relay(leader, inner);
  const ended = new Promise<void>((resolve) => thread.once('exit', () => resolve()));
  const lost = (): MillraceError =>
    new MillraceError('HOST_LOST', `The thread of ${name} has ended${cause === undefined ? '' : `: ${messageOf(cause)}`}.`, { cause });
  // W1.
  void leader.closed.then(() => {
    const late = setTimeout(() => void thread.terminate(), END_MS);
    void ended.then(() => clearTimeout(late));
  });
  let over = false;
  void ended.then(() => {
    over = true;
    if (cause !== undefined) log.error({ error: messageOf(cause), host: number }, 'A thread of this worker has failed.');
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
