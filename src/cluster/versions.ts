// Which version of the programs a cluster runs, and when another one takes over (protocols 21): pure.
//
// A version is what replicas have in common that would run the same plan of every job that is led. The job store names the plans that are in force; a replica with others
// stands by: a member, a candidate, and without tasks.
//
// Invariants:
//  V1  Candidates let those pass that have what is in force: so a leader that dies is followed by one of its version, where there is any. Where nobody has all of it,
//      nobody lets anybody pass.
//  V2  A newer version takes over when it has slots enough, behind a checkpoint that it says it can go on from; an older one only from a leader that leaves and whose own
//      version has no room without it. Newer is the version whose longest-standing member joined later.

import type { Member } from './zookeeper/membership.ts';

type Plans = Member['plans'];

/** A job as its leader runs it. */
export interface Led {
  readonly name: string;
  readonly plan: string;
}

export interface Version {
  /** The same for the same plans. */
  readonly key: string;
  readonly plans: Plans;
  readonly members: readonly Member[];
}

/** V1. `inForce`: by job, where it is known. */
export function yields(
  own: Plans,
  inForce: readonly { readonly name: string; readonly plan?: string | undefined }[],
  members: readonly Pick<Member, 'plans'>[],
): boolean {
  const held = inForce.filter(({ name, plan }) => plan !== undefined && members.some(({ plans }) => plans[name] === plan));
  const has = (plans: Plans): boolean => held.every(({ name, plan }) => plans[name] === plan);
  return !has(own) && members.some(({ plans }) => has(plans));
}

/** V2: the version that is to lead instead of this one, of those whose keys are not refused; undefined: none. */
export function heirOf(
  led: readonly Led[],
  members: readonly Member[],
  { self, leaves, refused = new Set() }: { readonly self: string; readonly leaves: boolean; readonly refused?: ReadonlySet<string> },
): Version | undefined {
  if (led.length === 0) return undefined;
  const staying = leaves ? members.filter(({ id }) => id !== self) : members;
  const present = keyOf(led, Object.fromEntries(led.map(({ name, plan }) => [name, plan])))!;
  const versions = versionsOf(led, staying);
  const own = versions.find(({ key }) => key === present);
  if (leaves && own !== undefined && hasRoom(led, own, staying)) return undefined;
  const since = oldest(members.filter(({ plans }) => keyOf(led, plans) === present));
  return versions
    .filter((version) => version.key !== present && !refused.has(version.key) && (leaves || oldest(version.members) > since) && hasRoom(led, version, staying))
    .sort((a, b) => oldest(b.members) - oldest(a.members))[0];
}

function versionsOf(led: readonly Led[], members: readonly Member[]): Version[] {
  const versions = new Map<string, { key: string; plans: Plans; members: Member[] }>();
  for (const member of members) {
    const key = keyOf(led, member.plans);
    if (key === undefined) continue;
    const version = versions.get(key) ?? { key, plans: member.plans, members: [] };
    version.members.push(member);
    versions.set(key, version);
  }
  return [...versions.values()];
}

/** Undefined: a job is missing. */
function keyOf(led: readonly Led[], plans: Plans): string | undefined {
  return led.every(({ name }) => plans[name] !== undefined) ? JSON.stringify(led.map(({ name }) => plans[name])) : undefined;
}

/** Whether each job has slots enough, where its plan is the same in another version too those of that one as well. */
function hasRoom(led: readonly Led[], { plans }: Version, members: readonly Member[]): boolean {
  return led.every(({ name }) => {
    const able = members.filter((member) => member.plans[name] === plans[name]);
    const needs = Math.max(...able.map((member) => member.needs?.[name] ?? 1));
    return able.reduce((sum, { slots }) => sum + slots, 0) >= needs;
  });
}

/** Who does not say is of an earlier version of Millrace, which said nothing. */
function oldest(members: readonly Member[]): number {
  return Math.min(...members.map(({ born = 0 }) => born));
}
