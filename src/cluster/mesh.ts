// A worker's connections to the other members: it dials those with a larger id for as long as they are listed, and is dialed by the others, so that whoever comes to lead
// reaches each of them at once.
//
// Invariants:
//  M1  A member that can be reached is connected, soon after it has come and soon after its connection was lost. Whoever needs it now waits, for a bounded time.
//  M2  A member that refuses for good is not asked again before RETRY_MS are over, and is told of once.

import { codeOf, MillraceError, messageOf } from '../errors.ts';
import type { Logger } from '../graph/context.ts';
import { DEFAULT_WAITS, waitBefore } from '../time/backoff.ts';
import type { Connection, Connections, Peer } from './transport/connections.ts';
import { linkLost } from './transport/link.ts';
import { pause } from './transport/pause.ts';
import type { Member } from './zookeeper/membership.ts';

/** A try: what was unreachable for long is then dialed anew, instead of waiting for the system's own ever longer pauses. */
const DIAL_MS = 5000;
/** Between tries: a connection that broke is soon back. */
const WAITS = { ...DEFAULT_WAITS, max: 1000 };
const RETRY_MS = 30_000;

export interface MeshOptions {
  readonly id: string;
  readonly connections: Pick<Connections, 'connect'>;
  readonly log: Logger;
  /** A connection has come or gone. */
  readonly changed: () => void;
}

export class Mesh {
  readonly #options: MeshOptions;
  readonly #standing = new Map<string, Connection>();
  /** By id of a member that is dialed: aborted when it is listed no more. */
  readonly #kept = new Map<string, AbortController>();
  readonly #awaited = new Set<() => void>();
  #ended = false;

  constructor(options: MeshOptions) {
    this.#options = options;
  }

  /** The connection that stands at present. */
  standing(worker: string): Connection | undefined {
    return this.#standing.get(worker);
  }

  /** One that was made, by either side; before anything has come over it. */
  established(connection: Connection): void {
    const { worker } = connection;
    this.#standing.set(worker, connection);
    void connection.lost.then(() => {
      if (this.#standing.get(worker) !== connection) return;
      this.#standing.delete(worker);
      this.#tell();
    });
    this.#tell();
  }

  /** Those that are listed now. */
  follow(members: readonly Member[]): void {
    if (this.#ended) return;
    const { id } = this.#options;
    const wanted = new Map(members.filter((member) => member.id > id).map((member) => [member.id, member]));
    for (const [worker, gone] of this.#kept) {
      if (wanted.has(worker)) continue;
      this.#kept.delete(worker);
      gone.abort();
    }
    for (const member of wanted.values()) {
      if (this.#kept.has(member.id)) continue;
      const gone = new AbortController();
      this.#kept.set(member.id, gone);
      void this.#keep(member, gone.signal);
    }
  }

  /** Waits for a connection. @throws LINK_LOST where there is none in time. */
  async to(worker: string, withinMs: number): Promise<Connection> {
    const standing = this.#standing.get(worker);
    if (standing !== undefined) return standing;
    return new Promise((resolve, reject) => {
      const look = (): void => {
        const found = this.#standing.get(worker);
        if (found === undefined && !this.#ended) return;
        over();
        if (found === undefined) reject(linkLost(worker, 'this worker is leaving'));
        else resolve(found);
      };
      const timer = setTimeout(() => {
        over();
        reject(linkLost(worker, `there was no connection to it for ${withinMs} ms`));
      }, withinMs);
      const over = (): void => {
        clearTimeout(timer);
        this.#awaited.delete(look);
      };
      this.#awaited.add(look);
      look();
    });
  }

  close(): void {
    this.#ended = true;
    for (const gone of this.#kept.values()) gone.abort();
    this.#kept.clear();
    this.#tell();
  }

  #tell(): void {
    for (const look of [...this.#awaited]) look();
    this.#options.changed();
  }

  /** M1. */
  async #keep(member: Member, gone: AbortSignal): Promise<void> {
    const { connections, log } = this.#options;
    const peer = peerOf(member);
    let told = false;
    for (let tried = 1; !gone.aborted; tried += 1) {
      try {
        const connection = await connections.connect(peer, { signal: gone, giveUpAfter: DIAL_MS });
        tried = 0;
        told = false;
        await Promise.race([connection.lost, aborted(gone)]);
      } catch (error) {
        if (gone.aborted) return;
        const passing = codeOf(error) === 'LINK_LOST' || (error instanceof MillraceError && error.retryable);
        if (!passing && !told) {
          told = true;
          log.error({ peer: member.id, error: messageOf(error) }, `The worker ${member.address} is a member of this cluster, and cannot be connected.`);
        }
        if (!passing) await pause(RETRY_MS, gone);
      }
      await pause(waitBefore(Math.max(1, tried), WAITS, Math.random()), gone);
    }
  }
}

/** Where a member listens. */
function peerOf({ id, address }: Member): Peer {
  const at = address.lastIndexOf(':');
  return { worker: id, host: address.slice(0, at).replace(/^\[(.*)\]$/, '$1'), port: Number(address.slice(at + 1)) };
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
