// What befalls a cluster in its chaos, one function a fault: it makes the fault, keeps it up where it lasts until the job has gone on in spite of it, and ends it. Whoever calls
// it waits then until everybody is there again and the job goes on.
//
// FAULTS come alone; TOGETHER are several at once, or one that comes and goes before anybody can be sure of it.

import { setTimeout as sleep } from 'node:timers/promises';
import type { ZooKeeperEnsemble } from '../services/zookeeper.ts';
import type { Networks } from './networks.ts';

export const SESSION_MS = 4000;
/** What a fault that lasts lasts for, at least. */
const LASTING_MS = SESSION_MS * 1.75;
/** How often something comes and goes, and how long it is away and back at most: sometimes for longer than what notices it takes, mostly not. */
const TIMES = 6;
const AWAY_MS = SESSION_MS * 0.9;
const BACK_MS = 1500;

export interface Victim {
  readonly name: string;
  signal(signal: 'SIGKILL' | 'SIGSTOP' | 'SIGCONT'): void;
  /** SIGKILL; resolves when it has ended. */
  kill(): Promise<void>;
  /** Anew, after that. */
  begin(): void;
}

/** Whom it may befall. */
export interface Scene {
  readonly leader: Victim;
  /** One with tasks where there is one. */
  readonly worker: Victim;
  readonly third: Victim;
  /** Two that have something to say to each other. */
  readonly pair: readonly [Victim, Victim];
  readonly networks: Networks;
  readonly ensemble: ZooKeeperEnsemble;
  readonly random: () => number;
  /** Resolves when a checkpoint is registered that is begun from now on. */
  goesOn(): Promise<void>;
  /** Whoever leads in a later epoch than that which was the newest when the scene began. */
  nextLeader(): Promise<Victim>;
}

type Befall = (scene: Scene) => Promise<void>;

async function lasts(scene: Scene): Promise<void> {
  await sleep(LASTING_MS);
  await scene.goesOn();
}

async function killed(victim: Victim, scene: Scene): Promise<void> {
  await victim.kill();
  await scene.goesOn();
  victim.begin();
}

async function stopped(victim: Victim, scene: Scene): Promise<void> {
  victim.signal('SIGSTOP');
  await lasts(scene);
  victim.signal('SIGCONT');
}

async function partedFromZooKeeper(victim: Victim, scene: Scene): Promise<void> {
  await scene.networks.partFromZooKeeper(victim.name, scene.random);
  await lasts(scene);
  await scene.networks.mend();
}

async function alone(victim: Victim, scene: Scene): Promise<void> {
  const { leader, worker, third, networks, random } = scene;
  await networks.partFromZooKeeper(victim.name, random);
  for (const other of [leader, worker, third]) if (other !== victim) await networks.part(victim.name, other.name, random);
  await lasts(scene);
  await networks.mend();
}

async function comesAndGoes({ networks, random }: Scene, part: () => Promise<void>): Promise<void> {
  for (let i = 0; i < TIMES; i++) {
    await part();
    await sleep(random() * AWAY_MS);
    await networks.mend();
    await sleep(random() * BACK_MS);
  }
}

async function killedAtOnce(...victims: readonly Victim[]): Promise<void> {
  await Promise.all(victims.map((victim) => victim.kill()));
  for (const victim of victims) victim.begin();
}

export const FAULTS = {
  'SIGKILL of a worker': (scene) => killed(scene.worker, scene),
  'SIGKILL of the leader': (scene) => killed(scene.leader, scene),
  'SIGKILL of a ZooKeeper server': async ({ ensemble, random, goesOn }) => {
    const node = ensemble.nodes[Math.floor(random() * ensemble.nodes.length)]!;
    await node.kill();
    await goesOn();
    await node.up();
  },
  'SIGSTOP of a worker for longer than its session': (scene) => stopped(scene.worker, scene),
  'SIGSTOP of the leader for longer than its session': (scene) => stopped(scene.leader, scene),
  'partition between two workers': async (scene) => {
    const [one, other] = scene.pair;
    await scene.networks.part(one.name, other.name, scene.random);
    await lasts(scene);
    await scene.networks.mend();
  },
  'partition of a worker and ZooKeeper': (scene) => partedFromZooKeeper(scene.worker, scene),
  'partition of the leader and ZooKeeper': (scene) => partedFromZooKeeper(scene.leader, scene),
} satisfies Record<string, Befall>;

export const TOGETHER = {
  'SIGKILL of the leader and a worker': ({ leader, worker }) => killedAtOnce(leader, worker),
  'SIGKILL of all replicas': ({ leader, worker, third }) => killedAtOnce(leader, worker, third),
  'SIGKILL of the leader, then of the next one': async ({ leader, nextLeader, random }) => {
    await leader.kill();
    const next = await nextLeader();
    await sleep(random() * 2000);
    await next.kill();
    leader.begin();
    next.begin();
  },
  'SIGKILL of two ZooKeeper servers': async ({ ensemble, random }) => {
    const spared = Math.floor(random() * ensemble.nodes.length);
    const nodes = ensemble.nodes.filter((_, i) => i !== spared);
    await Promise.all(nodes.map((node) => node.kill()));
    await sleep(random() * 2 * LASTING_MS);
    await Promise.all(nodes.map((node) => node.up()));
  },
  'SIGSTOP of a worker for a moment': async ({ worker, random }) => {
    worker.signal('SIGSTOP');
    await sleep(random() * SESSION_MS);
    worker.signal('SIGCONT');
  },
  'partition between two workers that comes and goes': (scene) => {
    const [one, other] = scene.pair;
    return comesAndGoes(scene, () => scene.networks.part(one.name, other.name, scene.random));
  },
  'partition of a worker and ZooKeeper that comes and goes': (scene) =>
    comesAndGoes(scene, () => scene.networks.partFromZooKeeper(scene.worker.name, scene.random)),
  'partition of the leader and ZooKeeper that comes and goes': (scene) =>
    comesAndGoes(scene, () => scene.networks.partFromZooKeeper(scene.leader.name, scene.random)),
  'partition of a worker and everybody': (scene) => alone(scene.worker, scene),
  'partition of the leader and everybody': (scene) => alone(scene.leader, scene),
  'partition of the leader and a worker and ZooKeeper': async (scene) => {
    await scene.networks.part(scene.leader.name, scene.worker.name, scene.random);
    await partedFromZooKeeper(scene.leader, scene);
  },
  'partition of the leader and ZooKeeper, SIGKILL of a worker': async (scene) => {
    await scene.networks.partFromZooKeeper(scene.leader.name, scene.random);
    await sleep(scene.random() * LASTING_MS);
    await killedAtOnce(scene.worker);
    await lasts(scene);
    await scene.networks.mend();
  },
  'partition between two workers, SIGSTOP of the leader': async (scene) => {
    const { leader, worker, third, networks, random } = scene;
    await networks.part(worker.name, third.name, random);
    leader.signal('SIGSTOP');
    await sleep(LASTING_MS);
    // The two that are left cannot do without each other.
    await networks.mend();
    await scene.goesOn();
    leader.signal('SIGCONT');
  },
} satisfies Record<string, Befall>;

export type Fault = keyof typeof FAULTS | keyof typeof TOGETHER;

export function befall(fault: Fault, scene: Scene): Promise<void> {
  const all: Readonly<Record<Fault, Befall>> = { ...FAULTS, ...TOGETHER };
  return all[fault](scene);
}
