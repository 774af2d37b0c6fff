// A line in which each waits for the one before it: what an election and a lock have in common.
//
// Invariants:
//  N1  A place is an ephemeral node with a number. Who has the lowest is first. Each of the others watches the one directly before it, so that one that goes wakes one.
//  N2  Taking a place has an unknown outcome where the connection is lost: it is found by the random part of its name, behind `settle()`; only where it is not there
//      another is taken. So nobody stands in the line twice.
//  N3  A place is lost with its session, and for ever.
//  N4  A place that nobody knows of, or that could not be left when it should be, would hold up the line for as long as its session lives: it is removed as soon as
//      servers answer again (insistence.ts). Until then whoever takes another place stands behind it.

import { randomUUID } from 'node:crypto';
import { Bell } from './bell.ts';
import type { Client } from './client.ts';
import { expired, isPassing, refusalOf, ZooKeeperError } from './errors.ts';
import { unlessAborted } from './follow.ts';
import { insisted } from './insistence.ts';
import { removeOwn } from './kept-node.ts';

export class Place {
  readonly path: string;
  /** Of the session that it lives with. */
  readonly epoch: number;
  readonly #client: Client;
  readonly #folder: string;
  readonly #name: string;

  private constructor(client: Client, folder: string, name: string, epoch: number) {
    this.#client = client;
    this.#folder = folder;
    this.#name = name;
    this.epoch = epoch;
    this.path = `${folder}/${name}`;
  }

  /** At the end of the line. */
  static async take(client: Client, folder: string, value: Uint8Array): Promise<Place> {
    for (;;) {
      await client.make(folder);
      const id = randomUUID();
      const { epoch } = client;
      try {
        const path = await client.create(`${folder}/${id}-`, value, 'ephemeral-sequential');
        if (client.epoch === epoch) return new Place(client, folder, path.slice(folder.length + 1), epoch);
      } catch (error) {
        // The folder was removed in between, by hand.
        if (refusalOf(error) === 'no-node') continue;
        if (!(error instanceof ZooKeeperError) || !error.unknown) throw error;
      }
      // N2, N3: whether it is there, and which session it lives with.
      const find = async (): Promise<string | undefined> => {
        await client.settle();
        return (await client.children(folder))?.find((each) => each.startsWith(id));
      };
      try {
        const name = await find();
        const owner = name === undefined ? undefined : (await client.get(`${folder}/${name}`))?.stat.owner;
        // Of another session it has gone, or is about to.
        if (name !== undefined && owner === client.sessionId) return new Place(client, folder, name, client.epoch);
      } catch (error) {
        void insisted(client, async () => {
          const name = await find();
          if (name !== undefined) await removeOwn(client, `${folder}/${name}`, client.epoch);
        });
        throw error;
      }
    }
  }

  /**
   * Resolves when nobody stands before it, or at once when the signal aborts.
   * @throws ZOOKEEPER_SESSION_EXPIRED where the place is lost.
   */
  async first(signal: AbortSignal): Promise<void> {
    const client = this.#client;
    const bell = new Bell();
    const off = [client.on('connected', bell.ring), client.on('expired', bell.ring), client.on('closed', bell.ring)];
    const release = client.hold();
    try {
      while (!signal.aborted) {
        bell.still();
        try {
          const names = ((await unlessAborted(client.children(this.#folder), signal)) ?? []).sort(byNumber);
          if (signal.aborted) return;
          const at = names.indexOf(this.#name);
          if (at < 0 || client.epoch !== this.epoch) throw expired('a place in a line');
          if (at === 0) return;
          const before = `${this.#folder}/${names[at - 1]!}`;
          if ((await unlessAborted(client.get(before, bell.ring), signal)) === undefined) continue;
        } catch (error) {
          // The place is there as long as the session may be.
          if (client.epoch !== this.epoch || !isPassing(error) || (error as ZooKeeperError).code === 'ZOOKEEPER_SESSION_EXPIRED') throw error;
          continue;
        }
        await bell.heard(signal);
      }
    } finally {
      for (const each of off) each();
      client.unwatch(bell.ring);
      release();
    }
  }

  /** Where it is not known to be gone when this rejects, it goes by itself (N4). */
  async leave(): Promise<void> {
    try {
      await removeOwn(this.#client, this.path, this.epoch);
    } catch (error) {
      // Its session ends with the client.
      if (!(error instanceof ZooKeeperError) || error.code !== 'ZOOKEEPER_CLOSED') throw error;
    }
  }
}

function byNumber(a: string, b: string): number {
  return numberOf(a) - numberOf(b);
}

function numberOf(name: string): number {
  return Number(name.slice(name.lastIndexOf('-') + 1));
}
