// The members of the cluster as this worker knows them: the newest set, and a way to wait for the next one.
//
// Invariant E1: while ZooKeeper cannot be asked the last set stays. Who is gone for good is told by the connections meanwhile.

import { codeOf, messageOf } from '../errors.ts';
import type { Logger } from '../graph/context.ts';
import { pause } from './transport/pause.ts';
import type { Client } from './zookeeper/client.ts';
import { followedMembers, type Member } from './zookeeper/membership.ts';

const AGAIN_MS = 1000;

export class MemberList {
  readonly #changed: () => void;
  #now: readonly Member[] = [];

  /** `changed` is called after each change. Resolves when the first set is there. */
  static async follow(client: Client, signal: AbortSignal, { log, changed }: { readonly log: Logger; readonly changed: () => void }): Promise<MemberList> {
    const list = new MemberList(changed);
    await new Promise<void>((resolve, reject) => void list.#follow(client, signal, log, resolve, reject));
    return list;
  }

  private constructor(changed: () => void) {
    this.#changed = changed;
  }

  get now(): readonly Member[] {
    return this.#now;
  }

  async #follow(client: Client, signal: AbortSignal, log: Logger, there: () => void, failed: (error: unknown) => void): Promise<void> {
    let first = true;
    while (!signal.aborted) {
      try {
        for await (const members of followedMembers(client, signal)) {
          this.#now = members;
          first = false;
          there();
          this.#changed();
        }
      } catch (error) {
        if (first) return failed(error);
        if (codeOf(error) === 'ZOOKEEPER_CLOSED') return;
        log.warn({ error: messageOf(error) }, 'The members of the cluster cannot be followed; it is tried again.');
        await pause(AGAIN_MS, signal);
      }
    }
    there();
  }
}
