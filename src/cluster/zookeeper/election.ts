// Who leads, and in which epoch.
//
// What: candidates stand in a line (line.ts); the first of them takes the leadership by raising the epoch, which is the version of the node LEADER. It is the fencing
// token: whatever a leader writes goes through `multi(check epoch, …)`, so that a deposed one writes nothing, however late it learns of it (protocols 17, 18).
//
// Invariants:
//  L1  Taking is one transaction: check that our own place is there, and set LEADER at the version that was read. So nobody takes it who has lost its session. What
//      becomes of it where the connection is lost is read behind `settle()`, in the same session, or the place is lost with the session.
//  L2  A leader that has taken it reads everything afterwards, in the same session: it sees what any leader before it has written, and nothing more is added to that.
//  L3  `isLeader()` compares the lease when it is asked, and the session. A term that was once over stays over, also where the session lives on: the place is then given
//      up, and another one is taken at the end of the line.
//  L4  `ended` is told in time by a timer, where the event loop runs; what excludes two leaders at a resource is the epoch.
//  L5  The epoch only rises. It is 1 in the first term of a cluster.
//  L6  Who is first and lets others pass gives its place up and takes the last one. So it goes on for as long as it lets them pass: some of them must stand as well.

import { setTimeout as sleep } from 'node:timers/promises';
import { MillraceError } from '../../errors.ts';
import type { Client, Operation } from './client.ts';
import { expired, isPassing, refusalOf, ZooKeeperError } from './errors.ts';
import { followed } from './follow.ts';
import { Place } from './line.ts';
import { CANDIDATES, LEADER } from './paths.ts';

/** What others see of a leader: plain data. */
export interface Leader<T = unknown> {
  readonly epoch: number;
  readonly value: T;
}

/** One leadership, from the moment it is taken. */
export interface Term {
  /** The fencing token, above that of every term before. */
  readonly epoch: number;
  /** Whether it still holds: true for as long as nobody else can have been elected. */
  isLeader(): boolean;
  /** Aborts when it is over; its reason is LEADER_DEPOSED. */
  readonly ended: AbortSignal;
  /** First in every `multi` of this leader: it fails with the reason `bad-version` where another has been elected since. */
  readonly check: Operation;
  /** Resolves when the next in the line may lead. */
  resign(): Promise<void>;
}

/** L6. */
export type Yields = () => Promise<boolean>;

/** How long one who lets others pass stays out of the line. */
const PASSED_MS = 200;

/**
 * Terms, one after the other, until the signal aborts, which ends the present one. The next is begun when the one before is over and is asked for; whoever leaves the loop resigns.
 * `value` is what others see of the leader: its address. `yields` is asked by who is first, before it takes the leadership.
 */
export async function* terms(client: Client, value: unknown, signal: AbortSignal, yields?: Yields): AsyncGenerator<Term, void> {
  while (!signal.aborted) {
    let term: HeldTerm | undefined;
    try {
      term = await elected(client, value, signal, yields);
    } catch (error) {
      // The place went with its session, or the servers are away.
      if (!isPassing(error)) throw error;
      continue;
    }
    if (term === undefined) return;
    try {
      yield term;
      await term.over();
    } finally {
      await term.resign().catch((error) => {
        // It goes by itself (line.ts, N4).
        if (!isPassing(error)) throw error;
      });
    }
  }
}

async function elected(client: Client, value: unknown, signal: AbortSignal, yields?: Yields): Promise<HeldTerm | undefined> {
  await client.make(LEADER);
  const stand = (): Promise<Place> => Place.take(client, CANDIDATES, Buffer.from(JSON.stringify(value ?? null)));
  let place = await stand();
  try {
    for (;;) {
      await place.first(signal);
      if (signal.aborted) break;
      if ((await yields?.()) === true) {
        await place.leave();
        await sleep(PASSED_MS, undefined, { signal }).catch(() => {
          // Aborted: the last look at the signal is behind.
        });
        place = await stand();
        continue;
      }
      const epoch = await take(client, place, value);
      // A term that began now would not hear of it.
      if (signal.aborted) break;
      if (epoch !== undefined) return new HeldTerm(client, place, epoch, signal);
    }
  } catch (error) {
    await place.leave().catch(() => {
      // It goes by itself, and why we do not lead is the other error.
    });
    throw error;
  }
  await place.leave();
  return undefined;
}

/**
 * L1. Undefined: another has raised the epoch in between.
 * @throws ZOOKEEPER_SESSION_EXPIRED where the place is lost.
 */
async function take(client: Client, place: Place, value: unknown): Promise<number | undefined> {
  const found = await client.get(LEADER);
  if (found === undefined) {
    // Removed by hand.
    await client.make(LEADER);
    return undefined;
  }
  const { version } = found.stat;
  try {
    await client.multi([
      { kind: 'check', path: place.path, version: 0 },
      { kind: 'set', path: LEADER, value: Buffer.from(JSON.stringify({ place: place.path, value: value ?? null })), version },
    ]);
    return version + 1;
  } catch (error) {
    if (refusalOf(error) === 'bad-version') return undefined;
    // It went with its session, or by hand.
    if (refusalOf(error) === 'no-node') throw expired('a place in a line');
    if (!(error instanceof ZooKeeperError) || !error.unknown) throw error;
  }
  await client.settle();
  const now = await client.get(LEADER);
  return now?.stat.version === version + 1 && placeIn(now.value) === place.path ? version + 1 : undefined;
}

class HeldTerm implements Term {
  readonly epoch: number;
  readonly check: Operation;
  readonly #client: Client;
  readonly #place: Place;
  readonly #ending = new AbortController();
  readonly #off: (() => void)[];

  constructor(client: Client, place: Place, epoch: number, signal: AbortSignal) {
    this.#client = client;
    this.#place = place;
    this.epoch = epoch;
    this.check = { kind: 'check', path: LEADER, version: epoch };
    const end = (): void => this.#end();
    this.#off = [client.on('lapsed', end), client.on('expired', end), client.on('closed', end), client.hold()];
    signal.addEventListener('abort', end);
    this.#off.push(() => signal.removeEventListener('abort', end));
    this.#watch().catch(end);
    // It may have been over before it began.
    this.isLeader();
  }

  get ended(): AbortSignal {
    return this.#ending.signal;
  }

  isLeader(): boolean {
    if (this.ended.aborted) return false;
    if (this.#client.epoch === this.#place.epoch && this.#client.leaseLeft() > 0) return true;
    this.#end();
    return false;
  }

  async resign(): Promise<void> {
    this.#end();
    await this.#place.leave();
  }

  over(): Promise<void> {
    return new Promise((resolve) => {
      if (this.ended.aborted) return resolve();
      this.ended.addEventListener('abort', () => resolve(), { once: true });
    });
  }

  /** Somebody may remove our place, or raise the epoch by hand. */
  async #watch(): Promise<void> {
    const look = (wake: () => void): Promise<boolean> =>
      Promise.all([this.#client.get(this.#place.path, wake), this.#client.get(LEADER, wake)]).then(
        ([place, leader]) => place !== undefined && leader?.stat.version === this.epoch,
      );
    for await (const ours of followed(this.#client, look, this.ended)) if (!ours) this.#end();
  }

  #end(): void {
    if (this.ended.aborted) return;
    this.#ending.abort(deposed(this.epoch));
    for (const off of this.#off) off();
  }
}

/** Who leads, and each change of it; undefined: nobody has yet. What is said may be over already. */
export function followedLeader<T>(client: Client, signal: AbortSignal): AsyncGenerator<Leader<T> | undefined, void> {
  return followed(
    client,
    async (wake) => {
      const found = await client.get(LEADER, wake);
      if (found === undefined || found.stat.version === 0) return undefined;
      const { value } = JSON.parse(found.value.toString()) as { value: T };
      return { epoch: found.stat.version, value };
    },
    signal,
  );
}

export function deposed(epoch: number, cause?: unknown): MillraceError {
  return new MillraceError('LEADER_DEPOSED', `The leadership of epoch ${epoch} is over.`, {
    todo: 'Nothing: another replica leads, or this one is elected anew.',
    cause,
  });
}

function placeIn(value: Buffer): string | undefined {
  if (value.length === 0) return undefined;
  return (JSON.parse(value.toString()) as { place?: string }).place;
}
