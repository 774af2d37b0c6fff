// What has to be done at the servers, and could not be when it should: it is done as soon as they answer again.
//
// What for: a node of ours that should be gone. Whoever stands behind it would wait for as long as our session lives, which a client that works keeps alive for ever.
//
// Invariants:
//  I1  It is tried at each connection until it is done, is refused for good, or the client is closed: its nodes go with its session then.
//  I2  It waits without a time limit, and keeps no process alive meanwhile.

import { Bell } from './bell.ts';
import type { Client } from './client.ts';
import { isPassing } from './errors.ts';

/** `work` may be done again and again, also in a later session. Resolves when nothing is left to do; it never rejects. */
export async function insisted(client: Client, work: () => Promise<void>): Promise<void> {
  const bell = new Bell();
  const closing = new AbortController();
  const off = [client.on('connected', bell.ring), client.on('closed', () => closing.abort())];
  try {
    while (!closing.signal.aborted) {
      bell.still();
      if (client.connected) {
        try {
          await work();
          return;
        } catch (error) {
          if (!isPassing(error)) return;
        }
      }
      await bell.heard(closing.signal);
    }
  } finally {
    for (const each of off) each();
  }
}
