// Following what changes: read, then wait for the watch that the same read has set, then read again.
//
// Invariants:
//  F1  The last value is never missed: a change between a read and the wait rings the bell, and so does each new connection and session, on which watches may be gone.
//      Values in between may be. The same value may be given again.
//  F2  While there is no connection it waits; what does not pass by itself is thrown. So is the failure of the first read, where nothing was ever answered.
//  F3  It ends at once when the signal aborts, also within a read.
//  F4  Nothing of what was read is held once the next has been: also where a value changes for months, and the signal never aborts.

import { setMaxListeners } from 'node:events';
import { pause } from '../transport/pause.ts';
import { Bell } from './bell.ts';
import type { Client } from './client.ts';
import { closed, isPassing } from './errors.ts';

const AGAIN_MS = 200;

export async function* followed<T>(client: Client, read: (wake: () => void) => Promise<T>, signal: AbortSignal): AsyncGenerator<T, void> {
  // One signal ends everything that a worker follows.
  setMaxListeners(0, signal);
  const bell = new Bell();
  let over = false;
  const release = client.hold();
  const off = [
    client.on('connected', bell.ring),
    client.on('expired', bell.ring),
    client.on('closed', () => {
      over = true;
      bell.ring();
    }),
  ];
  let first = true;
  try {
    while (!signal.aborted) {
      if (over) throw closed();
      bell.still();
      let found: { readonly value: T } | undefined;
      try {
        // F3. What is read then is of no interest.
        found = await unlessAborted(
          read(bell.ring).then((value) => ({ value })),
          signal,
        );
      } catch (error) {
        if (first || !isPassing(error)) throw error;
        await pause(AGAIN_MS, signal);
        continue;
      }
      if (signal.aborted || found === undefined) return;
      first = false;
      yield found.value;
      await bell.heard(signal);
    }
  } finally {
    for (const each of off) each();
    client.unwatch(bell.ring);
    release();
  }
}

/** The children of a folder with their values, each time one comes, goes or changes. A folder that is not there is an empty one. */
export function followedFolder(client: Client, folder: string, signal: AbortSignal): AsyncGenerator<ReadonlyMap<string, Buffer>, void> {
  return followed(client, (wake) => folderOf(client, folder, wake), signal);
}

export async function folderOf(client: Client, folder: string, wake?: () => void): Promise<ReadonlyMap<string, Buffer>> {
  const names = (await client.children(folder, wake)) ?? [];
  const nodes = await Promise.all(names.sort().map(async (name) => [name, await client.get(`${folder}/${name}`, wake)] as const));
  // One that has gone meanwhile has woken the folder too.
  return new Map(nodes.flatMap(([name, node]) => (node === undefined ? [] : [[name, node.value] as const])));
}

/** Undefined when the signal aborts first. F4: a promise that lived as long as the signal would hold whatever it was raced with. */
export function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T | undefined> {
  return new Promise((resolve, reject) => {
    const done = (): void => resolve(undefined);
    signal.addEventListener('abort', done, { once: true });
    if (signal.aborted) done();
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', done));
  });
}
