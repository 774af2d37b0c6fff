// What goes on though its leader is gone, and which regions another leader keeps running (protocols 17, step 6).
//
// Invariant S1: a region is kept where each of its tasks is reported once, by hosts of one leader, in the attempt that was begun last for it, of the lineage, the plan and the
// parallelism that run. Any other restarts from the newest checkpoint, which is always right. That a newer attempt was begun is durable before its first task is opened
// (checkpoint/registry.ts, G1), so what a leader had taken for lost is not kept, however healthy it is.

import type { StandingQuestion, StandingRegion } from '../execution/region.ts';
import { tasksOfRegion } from '../execution/region-tasks.ts';

/** A part that is whole (part-ledger.ts). */
export interface StandingPart {
  readonly name: string;
  readonly region: number;
  readonly attempt: number;
  readonly lineage: string;
  readonly planHash: string;
  readonly parallelism: number;
  readonly maxParallelism: number;
  /** Of the whole region: by task, the number of its host. */
  readonly placement: ReadonlyMap<string, number>;
  /** Of its own tasks (part-ledger.ts). */
  readonly markers: ReadonlyMap<string, number>;
}

/** What a host has that goes on, and the hosts that it is linked with: by number, which link it is. */
export interface Standing {
  readonly parts: readonly StandingPart[];
  readonly peers: ReadonlyMap<number, number>;
}

export interface StandingHost extends Standing {
  /** Under the leader that began it. */
  readonly host: number;
  readonly epoch: number;
}

/** A host that is reported, and by which worker. */
export interface Reported {
  readonly worker: string;
  readonly host: StandingHost;
}

export interface KeptRegion extends StandingRegion {
  readonly placement: ReadonlyMap<string, number>;
  readonly hosts: readonly Reported[];
  /** Names its parts, at each host. */
  readonly part: string;
}

/** S1: by number. */
export function regionsKept(reported: readonly Reported[], { graph, lineage, begun }: StandingQuestion): ReadonlyMap<number, KeptRegion> {
  const kept = new Map<number, KeptRegion>();
  for (const [region, attempt] of begun) {
    const fits = (part: StandingPart): boolean =>
      part.region === region &&
      part.attempt === attempt &&
      part.lineage === lineage &&
      part.planHash === graph.plan.hash &&
      part.parallelism === graph.defaults.parallelism;
    const hosts = reported.filter(({ host }) => host.parts.some(fits));
    const parts = hosts.flatMap(({ host }) => host.parts.filter(fits).map((part) => ({ part, host })));
    const first = parts[0];
    if (first === undefined || hosts.some(({ host }) => host.epoch !== first.host.epoch)) continue;
    const tasks = tasksOfRegion(graph, region).map(({ name }) => name);
    const once = tasks.every((task) => parts.filter(({ part, host }) => part.placement.get(task) === host.host && part.markers.has(task)).length === 1);
    if (tasks.length === 0 || !once) continue;
    const { name, maxParallelism, placement } = first.part;
    kept.set(region, { attempt, maxParallelism, placement, hosts, part: name, markers: new Map(parts.flatMap(({ part }) => [...part.markers])) });
  }
  return kept;
}
