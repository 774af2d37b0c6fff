// Which version of the programs a cluster runs, and when another one takes over (protocols 21): pure.
//
// A version is what replicas have in common that would run the same plan of every job that is led. The job store names the plans that are in force; a replica with others
// stands by: a member, a candidate, and without tasks.
//
// Invariants:
//  V1  Candidates let those pass that have what is in force: so a leader that dies is followed by one of its version, where there is any. Where nobody has all of it,
//      nobody lets anybody pass.
//  V2  A newer version takes over when it has slots enough, behind a checkpoint that it says it can go on from; an older one only from a leader that leaves and whose own
//      version has no room without it. Newer is what a leader has seen later: the job store has the order, so a replica that is started again makes its version no newer.
//  V3  What has tried and could not even start is rejected for the rest of the run; a leader that leaves asks it all the same.

import type { Member } from './zookeeper/membership.ts';

type Plans = Member['plans'];

/** A job that is to run, as its leader knows it. */
export interface Led {
  readonly name: string;
  /** That it runs with; undefined: this process cannot run it. */
  readonly plan: string | undefined;
  /** In the order in which leaders have seen them. */
  readonly versions: readonly string[];
  /** V3. */
  readonly rejected: readonly string[];
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

/** Why another version is looked for: it is newer, this leader leaves, or its version could not start. */
export type Reason = 'newer' | 'leaving' | 'failed';

/** V2: the version that is to lead instead of this one, of those whose keys are not refused; undefined: none. */
export function heirOf(
  led: readonly Led[],
  members: readonly Member[],
  {
    self,
    own: plans,
    why,
    refused = () => false,
  }: { readonly self: string; readonly own: Plans; readonly why: Reason; readonly refused?: (key: string) => boolean },
): Version | undefined {
  if (led.length === 0) return undefined;
  const own = keyOf(led, plans);
  const staying = why === 'leaving' ? members.filter(({ id }) => id !== self) : members;
  const versions = versionsOf(led, staying);
  const present = versions.find(({ key }) => key === own);
  if (why === 'leaving' && present !== undefined && hasRoom(led, present, staying)) return undefined;
  return versions
    .filter((version) => version.key !== own && !refused(version.key) && isEligible(led, version, why) && hasRoom(led, version, staying))
    .sort((a, b) => ageOf(led, b) - ageOf(led, a))[0];
}

function isEligible(led: readonly Led[], { plans }: Version, why: Reason): boolean {
  return led.every(({ name, plan, versions, rejected }) => {
    const other = plans[name]!;
    if (why === 'leaving' || other === plan) return true;
    if (rejected.includes(other)) return false;
    return why === 'failed' || versions.indexOf(other) > (plan === undefined ? -1 : versions.indexOf(plan));
  });
}

function ageOf(led: readonly Led[], { plans }: Version): number {
  return led.reduce((sum, { name, versions }) => sum + versions.indexOf(plans[name]!), 0);
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
