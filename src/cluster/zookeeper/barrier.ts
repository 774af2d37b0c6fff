// A barrier: nobody goes on before so many have come, and, at its end, before all have left.
//
//   barriers/<name>/ready        there once enough have come
//   barriers/<name>/<id>         ephemeral: one that has come and not left
//
// Invariants:
//  B1  Whoever comes puts its node first and counts afterwards, and the one that counts enough creates `ready`. `ready` is watched before the count, so that its creation
//      is not missed.
//  B2  Whoever leaves removes its own node and waits until nobody is left; `ready` goes with the last. A process that dies counts as having left.
//  B3  A barrier is for one meeting at a time: the next may begin when all have left.

import { randomUUID } from 'node:crypto';
import type { Client } from './client.ts';
import { expired, isPassing, refusalOf } from './errors.ts';
import { followed } from './follow.ts';
import { KeptNode } from './kept-node.ts';
import { BARRIERS, nodeName } from './paths.ts';

/** A barrier that has been passed. */
export interface Barrier {
  /** Resolves when all have left, this one included; where the signal aborts, when this one has. */
  leave(signal?: AbortSignal): Promise<void>;
}

const READY = 'ready';

export async function enter(client: Client, name: string, size: number, asking?: AbortSignal): Promise<Barrier> {
  const signal = asking ?? new AbortController().signal;
  signal.throwIfAborted();
  const folder = `${BARRIERS}/${nodeName(name)}`;
  const own = await KeptNode.open(client, `${folder}/${randomUUID()}`, Buffer.alloc(0));
  try {
    await together(client, folder, size, signal);
    signal.throwIfAborted();
  } catch (error) {
    await own.close();
    throw error;
  }
  return {
    async leave(until = new AbortController().signal) {
      await own.close();
      for await (const names of followed(client, (wake) => client.children(folder, wake), until)) {
        if ((names ?? []).every((each) => each === READY)) break;
      }
      await done(client, `${folder}/${READY}`);
    },
  };
}

/** B1. */
async function together(client: Client, folder: string, size: number, signal: AbortSignal): Promise<void> {
  const look = async (wake: () => void): Promise<boolean> => {
    if ((await client.get(`${folder}/${READY}`, wake)) !== undefined) return true;
    const come = ((await client.children(folder, wake)) ?? []).filter((each) => each !== READY).length;
    if (come < size) return false;
    await done(client, `${folder}/${READY}`, true);
    return true;
  };
  for await (const ready of followed(client, look, signal)) if (ready) return;
  signal.throwIfAborted();
  throw expired('a barrier');
}

/** There, or gone: whoever else has done the same is welcome. */
async function done(client: Client, path: string, there = false): Promise<void> {
  for (;;) {
    try {
      await (there ? client.create(path, Buffer.alloc(0)) : client.remove(path, -1));
      return;
    } catch (error) {
      if (refusalOf(error) === (there ? 'node-exists' : 'no-node')) return;
      if (!isPassing(error) || (error as { code?: unknown }).code === 'ZOOKEEPER_UNREACHABLE') throw error;
    }
  }
}
