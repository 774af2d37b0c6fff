// Threads of this process as hosts: started with the first region, restarted when one has died, ended with the job.
//
// Who owns what: this thread supervises the others and never runs a task; each has a link to it and one to every other thread (transport/thread-link.ts).
//
// Invariants:
//  T1  Parts are opened when every thread has answered and is linked with each other one.
//  T2  A thread that ends, or is silent for STALL_MS, takes its parts with it; the next attempt has a new one in its place. Nothing of the process ends with it, also not
//      where a database of keyed state is open in it with calls in flight: Node waits for those before it takes the thread down, and the binding then closes it.
//  T3  Two threads that live and whose link is gone take down the regions that have tasks at both, and are linked anew by the next attempt.

import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads';
import { MillraceError, messageOf } from '../errors.ts';
import type { Hosts } from '../execution/region.ts';
import type { PartOptions, RegionPart } from '../execution/region-part.ts';
import { tasksOfRegion } from '../execution/region-tasks.ts';
import type { Logger } from '../graph/context.ts';
import type { Io } from '../runtime/io.ts';
import { hangsIn } from './hanging.ts';
import { HostLink } from './host-link.ts';
import { errorOf } from './host-mail.ts';
import { placeTasks } from './placement.ts';
import { openParts, partRequest } from './remote-parts.ts';
import { stalledThread } from './stalled.ts';
import type { ThreadAnswer, ThreadAsk } from './thread-mail.ts';
import { threadLink } from './transport/thread-link.ts';

/** A thread whose event loop gives no turn for so long is taken for an endless loop. */
const STALL_MS = 30_000;
const BEAT_MS = 1000;
const END_MS = 10_000;

export interface ThreadsOptions {
  readonly count: number;
  /** What a thread runs (src/thread-main.ts), and what it is given. */
  readonly entry: URL;
  readonly data: object;
  readonly io: Io;
  readonly log: Logger;
  /** Milliseconds without a turn of its event loop after which a thread is taken for an endless loop; default 30,000. */
  readonly stallMs?: number | undefined;
}

interface Thread {
  readonly worker: Worker;
  readonly host: HostLink;
  readonly ended: Promise<void>;
  alive: boolean;
  /** It is looked at, and ended. */
  stalled: boolean;
  /** Why it ends, where that is known. */
  cause: unknown;
  /** With which it is linked, or is being linked, and by the number of that link. */
  readonly peers: Map<Thread, number>;
}

export class Threads implements Hosts {
  readonly #options: ThreadsOptions;
  readonly #threads: (Thread | undefined)[];
  #ready: Promise<void> | undefined;
  #beat: unknown;
  #closed = false;
  #links = 0;

  constructor(options: ThreadsOptions) {
    this.#options = options;
    this.#threads = new Array<Thread | undefined>(options.count).fill(undefined);
  }

  async parts(options: PartOptions): Promise<readonly RegionPart[]> {
    await this.#complete();
    const placement = placeTasks(tasksOfRegion(options.graph, options.number), this.#options.count);
    const used = [...new Set(placement.values())];
    return openParts(
      used.map((number) => ({ host: this.#threads[number]!.host, number })),
      partRequest(options, placement),
      options,
    );
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#options.io.clock.clearTimeout(this.#beat);
    const late = this.#options.io.clock.setTimeout(() => {
      for (const thread of this.#threads) void thread?.worker.terminate();
    }, END_MS);
    for (const thread of this.#threads) thread?.host.close();
    await Promise.all(this.#threads.map((thread) => thread?.ended));
    this.#options.io.clock.clearTimeout(late);
  }

  /** T1. */
  #complete(): Promise<void> {
    this.#ready ??= this.#start().finally(() => {
      this.#ready = undefined;
    });
    return this.#ready;
  }

  async #start(): Promise<void> {
    const missing = [...this.#threads.keys()].filter((number) => this.#threads[number]?.alive !== true);
    await Promise.all(missing.map((number) => this.#begin(number)));
    const joined: Promise<void>[] = [];
    for (const [a, one] of this.#threads.entries()) {
      for (const [b, other] of this.#threads.entries()) {
        if (a >= b || one!.peers.has(other!)) continue;
        this.#links += 1;
        const by = this.#links;
        one!.peers.set(other!, by);
        other!.peers.set(one!, by);
        const { port1, port2 } = new MessageChannel();
        joined.push(joins(one!, b, port1, by), joins(other!, a, port2, by));
      }
    }
    await Promise.all(joined);
    // A beat that begins now would be ended by nobody.
    if (this.#closed) throw new MillraceError('HOST_LOST', 'The job ended while its threads were started.');
    this.#watch();
  }

  /** Resolves when the module is loaded there. */
  async #begin(number: number): Promise<void> {
    const { entry, data, log } = this.#options;
    const name = `thread-${number}`;
    const { port1, port2 } = new MessageChannel();
    // The module may look at the arguments that this process was started with.
    const worker = new Worker(entry, { name, argv: process.argv.slice(2), workerData: { ...data, number, leader: port2 }, transferList: [port2] });
    const host = new HostLink(name, threadLink(port1, { peer: name }), {
      log,
      unlinked: ({ peer, by, error }) => void this.#unlinked(thread, this.#threads[peer], by, errorOf(error)),
    });
    const ended = new Promise<void>((resolve) => worker.once('exit', () => resolve()));
    const thread: Thread = { worker, host, ended, alive: true, stalled: false, cause: undefined, peers: new Map() };
    worker.on('error', (error) => {
      thread.cause ??= error;
    });
    this.#threads[number] = thread;
    const lost = (): MillraceError => {
      const { cause } = thread;
      if (thread.stalled && cause instanceof MillraceError) return cause;
      return new MillraceError('HOST_LOST', `${name} of this process has ended${cause === undefined ? '' : `: ${messageOf(cause)}`}.`, { cause });
    };
    void ended.then(() => {
      thread.alive = false;
      for (const other of thread.peers.keys()) other.peers.delete(thread);
      host.lost(lost());
    });
    await Promise.race([
      said(worker, (message) => message === 'ready'),
      ended.then(() => {
        const { cause } = thread;
        throw cause instanceof Error && 'code' in cause && 'retryable' in cause ? cause : lost();
      }),
    ]);
  }

  /** T3. */
  async #unlinked(one: Thread, other: Thread | undefined, by: number, cause: Error): Promise<void> {
    if (other === undefined || one.peers.get(other) !== by) return;
    one.peers.delete(other);
    other.peers.delete(one);
    // One that has ended is heard of in a moment: both answer, or are lost.
    await Promise.all([one.host.ask('tree'), other.host.ask('tree')]);
    if (!one.alive || !other.alive) return;
    const error = new MillraceError('LINK_LOST', `The link between ${one.host.name} and ${other.host.name} of this process is gone: ${messageOf(cause)}`, {
      cause,
      retryable: true,
      todo: 'Nothing: what went over it restarts from the newest checkpoint.',
    });
    one.host.unlinked(this.#threads.indexOf(other), error);
  }

  /** T2. */
  #watch(): void {
    const { io, stallMs = STALL_MS } = this.#options;
    const beatMs = Math.min(BEAT_MS, stallMs / 4);
    io.clock.clearTimeout(this.#beat);
    this.#beat = io.clock.setTimeout(() => {
      for (const thread of this.#threads) {
        if (thread?.alive !== true || thread.stalled) continue;
        if (thread.host.beat() > stallMs / beatMs) void this.#end(thread);
      }
      this.#watch();
    }, beatMs);
  }

  /** T2. */
  async #end(thread: Thread): Promise<void> {
    const { log, stallMs = STALL_MS } = this.#options;
    thread.stalled = true;
    const error = stalledThread(`${thread.host.name} of this process`, stallMs, await hangsIn(thread.worker));
    thread.cause ??= error;
    log.error({ host: thread.host.name, error: error.sentence }, 'A thread gives no answer any more, and is ended.');
    await thread.worker.terminate();
  }
}

async function joins({ worker, ended }: Thread, peer: number, port: MessagePort, by: number): Promise<void> {
  const joined = said(worker, (message) => (message as Partial<ThreadAnswer>).ask === by);
  worker.postMessage({ kind: 'join', peer, port, by, within: true, ask: by } satisfies ThreadAsk, [port]);
  await Promise.race([joined, ended]);
}

function said(worker: Worker, is: (message: unknown) => boolean): Promise<void> {
  return new Promise((resolve) => {
    const listen = (message: unknown): void => {
      if (!is(message)) return;
      worker.off('message', listen);
      resolve();
    };
    worker.on('message', listen);
  });
}
