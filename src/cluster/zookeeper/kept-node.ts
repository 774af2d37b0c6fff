// An ephemeral node that is there as long as its owner wants it: a member, an endpoint.
//
// Invariants:
//  K1  After an expiry it is made anew in the next session, with its newest value; so it is where somebody has removed it. One that an earlier session of ours has left
//      behind is replaced.
//  K2  Its name is nobody else's (it has a random part), so that whatever is there under it is ours.
//  K3  `open` resolves when it is there for the first time; `close` when it is gone, or goes with its session.
//  K4  Once it was there, nothing but the end of its client keeps it from being made again: also where it is refused for a while, such as by an ACL.

import { dirname } from 'node:path/posix';
import type { Client, Znode } from './client.ts';
import { isPassing, refusalOf } from './errors.ts';
import { followed } from './follow.ts';
import { insisted } from './insistence.ts';

const AGAIN_MS = 1000;

export class KeptNode {
  readonly #client: Client;
  readonly #path: string;
  readonly #ending = new AbortController();
  #value: Uint8Array;
  #writing: Promise<void> = Promise.resolve();
  #keeping: Promise<void> = Promise.resolve();

  private constructor(client: Client, path: string, value: Uint8Array) {
    this.#client = client;
    this.#path = path;
    this.#value = value;
  }

  static async open(client: Client, path: string, value: Uint8Array): Promise<KeptNode> {
    const kept = new KeptNode(client, path, value);
    await new Promise<void>((resolve, reject) => {
      kept.#keeping = kept.#keep(resolve, reject);
    });
    return kept;
  }

  /** Resolves when it is stored, or is to be with the next session. */
  set(value: Uint8Array): Promise<void> {
    this.#value = value;
    return this.#turn(async () => {
      const found = await this.#client.get(this.#path);
      if (found !== undefined) await this.#put(found);
    });
  }

  async close(): Promise<void> {
    this.#ending.abort();
    await this.#keeping;
    const { epoch } = this.#client;
    await this.#turn(() => removeOwn(this.#client, this.#path, epoch));
  }

  /** K1, K4. */
  async #keep(there: () => void, failed: (error: unknown) => void): Promise<void> {
    const { signal } = this.#ending;
    const client = this.#client;
    let made = false;
    while (!signal.aborted) {
      try {
        for await (const found of followed(client, (wake) => client.get(this.#path, wake), signal)) {
          try {
            await this.#turn(() => (signal.aborted ? Promise.resolve() : this.#put(found)));
          } catch (error) {
            // The next connection, or the change that came in between, brings another look.
            if (!isPassing(error) && refusalOf(error) === undefined) throw error;
            continue;
          }
          made = true;
          there();
        }
      } catch (error) {
        if (!made) return failed(error);
        if ((error as { code?: unknown }).code === 'ZOOKEEPER_CLOSED') return;
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, AGAIN_MS);
          const done = (): void => {
            clearTimeout(timer);
            resolve();
          };
          signal.addEventListener('abort', done, { once: true });
        });
      }
    }
  }

  async #put(found: Znode | undefined): Promise<void> {
    const client = this.#client;
    const value = this.#value;
    if (found !== undefined && found.stat.owner === client.sessionId) {
      if (!found.value.equals(value)) await client.set(this.#path, value, -1);
      return;
    }
    if (found !== undefined) await client.remove(this.#path, -1);
    for (;;) {
      await client.make(dirname(this.#path));
      try {
        await client.create(this.#path, value, 'ephemeral');
        return;
      } catch (error) {
        // The folder was removed in between, by hand: no watch tells of that.
        if (refusalOf(error) !== 'no-node') throw error;
      }
    }
  }

  #turn(work: () => Promise<void>): Promise<void> {
    const turn = this.#writing.then(work);
    this.#writing = turn.catch(() => {
      // Whoever asked for it is told.
    });
    return turn;
  }
}

/**
 * Removes a node that lives with the session `epoch`: gone when it resolves, or gone with that session. Where no server answers it rejects, and the node goes with the next
 * connection: a session that outlives the absence of all servers would hold it for ever, and with it up whoever waits for that.
 */
export async function removeOwn(client: Client, path: string, epoch: number): Promise<void> {
  while (client.epoch === epoch) {
    try {
      await client.remove(path, -1);
      return;
    } catch (error) {
      if (refusalOf(error) === 'no-node') return;
      // It may be asked again whatever became of it; the client waits for a connection by itself.
      if (!isPassing(error)) throw error;
      if ((error as { code?: unknown }).code !== 'ZOOKEEPER_UNREACHABLE') continue;
      removeLater(client, path, epoch);
      throw error;
    }
  }
}

/** What goes with the next connection. */
const leaving = new WeakMap<Client, Set<string>>();

function removeLater(client: Client, path: string, epoch: number): void {
  const paths = leaving.get(client) ?? new Set();
  leaving.set(client, paths);
  if (paths.has(path)) return;
  paths.add(path);
  void insisted(client, () => removeOwn(client, path, epoch)).then(() => paths.delete(path));
}
