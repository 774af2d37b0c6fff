// A lock that one process of all holds at a time.
//
// Invariants:
//  O1  Who is first in the line holds it (line.ts); it passes in the order of asking.
//  O2  It is lost where the lease ends (`signal` aborts), and then nobody may act on it any more, though its node may live on for a moment: so two never hold it, as
//      far as each looks at `held()` or `signal` where it acts. A process that stood still cannot look: `token`, which rises from holder to holder, is for the resource.

import { MillraceError } from '../../errors.ts';
import type { Client } from './client.ts';
import { expired } from './errors.ts';
import { Place } from './line.ts';
import { LOCKS, nodeName } from './paths.ts';

/** A lock that is held. */
export interface Lock {
  /** Larger than that of every holder before: for resources that refuse a smaller one. */
  readonly token: bigint;
  /** Compared with the lease when it is asked. */
  held(): boolean;
  /** Aborts where the lock is lost, with ZOOKEEPER_SESSION_EXPIRED as its reason, and when it is released. */
  readonly signal: AbortSignal;
  /**
   * Resolves when another process may have it.
   * @throws ZOOKEEPER_UNREACHABLE: it is not held any more, and another process may have it as soon as servers answer us again, or our session is over
   */
  release(): Promise<void>;
}

export async function lock(client: Client, name: string, asking?: AbortSignal): Promise<Lock> {
  const waiting = asking ?? new AbortController().signal;
  waiting.throwIfAborted();
  const place = await Place.take(client, `${LOCKS}/${nodeName(name)}`, Buffer.alloc(0));
  let token: bigint;
  try {
    await place.first(waiting);
    waiting.throwIfAborted();
    const own = await client.get(place.path);
    if (own === undefined) throw expired(`the place in the line for the lock '${name}'`);
    token = own.stat.czxid;
  } catch (error) {
    await place.leave().catch(() => {
      // It goes by itself (line.ts, N4), and why there is no lock is the other error.
    });
    throw error;
  }
  const losing = new AbortController();
  const lose = (): void => end(expired(`the lock '${name}'`));
  const off = [client.on('lapsed', lose), client.on('expired', lose), client.on('closed', lose), client.hold()];
  const end = (reason: MillraceError): void => {
    for (const each of off) each();
    losing.abort(reason);
  };
  const held = (): boolean => {
    if (losing.signal.aborted) return false;
    if (client.epoch === place.epoch && client.leaseLeft() > 0) return true;
    lose();
    return false;
  };
  held();
  return {
    token,
    held,
    signal: losing.signal,
    async release() {
      if (!losing.signal.aborted) end(new MillraceError('ZOOKEEPER_CLOSED', `The lock '${name}' was released.`));
      await place.leave();
    },
  };
}
