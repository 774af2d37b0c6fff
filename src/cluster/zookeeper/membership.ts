// Who belongs to the cluster: one ephemeral node a worker, and the whole set, watched.
//
// Invariants:
//  M1  A member is listed while its session lives, and again after an expiry, by itself (kept-node.ts). One whose process died goes when its session's time is over.
//  M2  The set is given whole, in the order of ids, each time a member comes, goes, or says something else of itself; never the same set twice in a row.
//  M3  A node that is no member (of a newer version, or written by hand) is left out.
//  M4  `born` is drawn when it joins for the first time and stays, also over an expiry: of two members the one that joined later has the larger one.

import type { Client } from './client.ts';
import { folderOf, followedFolder } from './follow.ts';
import { KeptNode } from './kept-node.ts';
import { MEMBERS, nodeName } from './paths.ts';

export interface MemberDoor {
  readonly url: string;
  readonly id: string;
}

/** What a worker says of itself. */
export interface Member {
  /** Drawn at random when its process starts. */
  readonly id: string;
  /** `host:port` where its peers reach it. */
  readonly address: string;
  /** How many tasks of one vertex it takes. */
  readonly slots: number;
  /** Threads that they are dealt out to; 1 where it does not say. */
  readonly hosts?: number;
  /** Of Millrace. */
  readonly version: string;
  /** By job: the hash of the plan that it would run (protocols 21). */
  readonly plans: Readonly<Record<string, string>>;
  /** By job: how many slots it takes at least; 1 where it does not say. */
  readonly needs?: Readonly<Record<string, number>>;
  /** By job: its control door here, and the id by which that answers for it. */
  readonly doors?: Readonly<Record<string, MemberDoor>>;
  /** M4; said a moment after it has joined. */
  readonly born?: number;
}

export interface Membership {
  /** Says something else of itself, under the same id. */
  update(member: Omit<Member, 'id'>): Promise<void>;
  leave(): Promise<void>;
}

export async function join(client: Client, member: Member): Promise<Membership> {
  const { id } = member;
  const path = `${MEMBERS}/${nodeName(id)}`;
  const kept = await KeptNode.open(client, path, bytesOf(member));
  let born: number;
  try {
    // M4.
    born = Number((await client.get(path))?.stat.czxid ?? 0n);
    await kept.set(bytesOf({ ...member, born }));
  } catch (error) {
    // Nobody else would end it: a member that nobody is.
    await kept.close().catch(() => {
      // With the next connection, or the session.
    });
    throw error;
  }
  return {
    update: (changed) => kept.set(bytesOf({ ...changed, id, born })),
    leave: () => kept.close(),
  };
}

export async function membersNow(client: Client): Promise<readonly Member[]> {
  return [...(await folderOf(client, MEMBERS)).values()].flatMap((value) => memberIn(value));
}

/** M2. */
export async function* followedMembers(client: Client, signal: AbortSignal): AsyncGenerator<readonly Member[], void> {
  let last: string | undefined;
  for await (const nodes of followedFolder(client, MEMBERS, signal)) {
    const members = [...nodes.values()].flatMap((value) => memberIn(value));
    const said = JSON.stringify(members);
    if (said === last) continue;
    last = said;
    yield members;
  }
}

function bytesOf(member: Member): Buffer {
  return Buffer.from(JSON.stringify(member));
}

/** M3. */
function memberIn(value: Buffer): Member[] {
  try {
    const { id, address, slots, hosts, version, plans, needs, doors, born } = JSON.parse(value.toString()) as Member;
    const whole =
      typeof id === 'string' && typeof address === 'string' && typeof slots === 'number' && typeof version === 'string' && typeof plans === 'object';
    const more = {
      ...(typeof hosts === 'number' ? { hosts } : {}),
      ...(typeof needs === 'object' && needs !== null ? { needs } : {}),
      ...(typeof doors === 'object' && doors !== null ? { doors } : {}),
      ...(typeof born === 'number' ? { born } : {}),
    };
    return whole && plans !== null ? [{ id, address, slots, version, plans, ...more }] : [];
  } catch {
    return [];
  }
}
