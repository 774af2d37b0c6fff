// The connection of one source in this process: a cluster and a fetcher, shared by all its reads and by discovery, and closed when the last of them is done.
//
// Invariants:
//  A1  Whoever acquires releases, once. The last one's release closes sockets and timers; the next acquire opens anew.
//  A2  Nobody waits for brokers longer than for the end of the attempt.
//  A3  What could not be opened is not kept: the next acquire tries again.

import { messageOf } from '../../errors.ts';
import type { Logger } from '../../graph/context.ts';
import type { Io } from '../../runtime/io.ts';
import type { Cluster } from './client.ts';
import { Fetcher } from './fetcher.ts';

/** Who asks. */
export interface Tenant {
  readonly uid: string;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

export interface Lease {
  readonly cluster: Cluster;
  readonly fetcher: Fetcher;
  /** Called when a topic that is read has more partitions than before. */
  onGrown(listener: () => void): void;
  release(): void;
}

interface Opened {
  readonly cluster: Cluster;
  readonly fetcher: Fetcher;
}

interface Shared {
  tenants: number;
  readonly opened: Promise<Opened>;
  readonly grown: Set<() => void>;
}

export class SharedConnection {
  readonly #connect: (log: Logger) => Promise<Cluster>;
  readonly #io: Io;
  #shared: Shared | undefined;

  constructor(connect: (log: Logger) => Promise<Cluster>, io: Io) {
    this.#connect = connect;
    this.#io = io;
  }

  /** Undefined: the attempt has ended first. */
  async acquire(tenant: Tenant): Promise<Lease | undefined> {
    const { signal, log } = tenant;
    if (signal.aborted) return undefined;
    this.#shared ??= this.#open(tenant);
    const shared = this.#shared;
    shared.tenants += 1;
    let released = false;
    const listeners: (() => void)[] = [];
    const release = (): void => {
      if (released) return;
      released = true;
      for (const listener of listeners) shared.grown.delete(listener);
      shared.tenants -= 1;
      if (shared.tenants > 0) return;
      if (this.#shared === shared) this.#shared = undefined;
      shared.opened.then(close).catch((error) => log.debug({ error: messageOf(error) }, 'A connection to Kafka could not be closed.'));
    };
    try {
      const opened = await unless(signal, shared.opened);
      if (opened === undefined) {
        release();
        return undefined;
      }
      const { cluster, fetcher } = opened;
      const onGrown = (listener: () => void): void => {
        listeners.push(listener);
        shared.grown.add(listener);
      };
      return { cluster, fetcher, onGrown, release };
    } catch (error) {
      if (this.#shared === shared) this.#shared = undefined;
      throw error;
    }
  }

  #open({ uid, log }: Tenant): Shared {
    const grown = new Set<() => void>();
    const open = async (): Promise<Opened> => {
      const cluster = await this.#connect(log);
      const tell = (): void => {
        for (const listener of grown) listener();
      };
      return { cluster, fetcher: new Fetcher({ cluster, uid, log, io: this.#io, grown: tell }) };
    };
    const opened = open();
    // Met by whoever acquires; where the attempt has ended first, by nobody.
    opened.catch(() => {});
    return { tenants: 0, opened, grown };
  }
}

async function close({ cluster, fetcher }: Opened): Promise<void> {
  fetcher.close();
  await cluster.close();
}

/** Undefined: the signal came first. */
function unless<R>(signal: AbortSignal, answer: Promise<R>): Promise<R | undefined> {
  return new Promise((resolve, reject) => {
    const ended = (): void => resolve(undefined);
    signal.addEventListener('abort', ended);
    answer.then(resolve, reject).finally(() => signal.removeEventListener('abort', ended));
  });
}
