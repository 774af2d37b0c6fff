// Three replicas with networks between them (networks.ts), faults that befall them (faults.ts), and what is seen of the job from outside: in ZooKeeper, and in what replicas say.

import type { ChildProcess } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { followedLeader } from '../../src/cluster/zookeeper/election.ts';
import { isPassing } from '../../src/cluster/zookeeper/errors.ts';
import { followedMembers, type Member } from '../../src/cluster/zookeeper/membership.ts';
import { nodeName, registryOf } from '../../src/cluster/zookeeper/paths.ts';
import { Session } from '../../src/cluster/zookeeper/session.ts';
import { bundled } from '../bundled.ts';
import { type Input, Trial } from '../e2e/trial.ts';
import type { ZooKeeperEnsemble } from '../services/zookeeper.ts';
import type { ReplicaSettings } from './chaos-replica.ts';
import { befall, type Fault, SESSION_MS, type Victim } from './faults.ts';
import type { Networks, Place } from './networks.ts';
import { deposedRegistrations, type Registration } from './registrations.ts';
import { freshRoot } from './zookeeper/clients.ts';

const RECOVERY_MS = 120_000;
const program = fileURLToPath(new URL('./chaos-replica.ts', import.meta.url));

export const REPLICAS = ['replica-0', 'replica-1', 'replica-2'];

interface Replica {
  readonly name: string;
  readonly place: Place;
  process: ChildProcess;
  ended: Promise<void>;
  errors: string;
}

/** What was told, and when. */
interface Told {
  readonly at: number;
  readonly what: string;
}

export class ChaosCluster {
  readonly #trial: Trial;
  readonly #ensemble: ZooKeeperEnsemble;
  readonly #networks: Networks;
  readonly #root = freshRoot();
  readonly #replicas: Replica[] = [];
  readonly #told: Told[] = [];
  readonly #client: Session;
  readonly #ending = new AbortController();
  #members: readonly Member[] = [];
  #leader: string | undefined;
  #epoch = 0;
  readonly #registrations = new Map<number, Registration>();
  /** The transaction that was the newest when that epoch was heard of: the epoch is older. */
  readonly #epochs = new Map<number, bigint>();

  /** The networks are those of REPLICAS, with the ensemble in them; they are the caller's to close. */
  static async start(input: Input, ensemble: ZooKeeperEnsemble, networks: Networks): Promise<ChaosCluster> {
    const cluster = new ChaosCluster(new Trial(input, { every: 200, parallelism: 3, pace: 1500 }), ensemble, networks);
    try {
      await cluster.#start();
    } catch (error) {
      await cluster.close();
      throw error;
    }
    return cluster;
  }

  private constructor(trial: Trial, ensemble: ZooKeeperEnsemble, networks: Networks) {
    this.#trial = trial;
    this.#ensemble = ensemble;
    this.#networks = networks;
    this.#client = new Session({ connect: ensemble.connect, root: this.#root, sessionTimeoutMs: 10_000, connectTimeoutMs: 30_000 });
  }

  async #start(): Promise<void> {
    const servers = this.#ensemble.nodes.map(({ connect }) => connect);
    for (const name of REPLICAS) {
      const place = await this.#networks.place(name, servers);
      const replica: Replica = { name, place, process: undefined as never, ended: Promise.resolve(), errors: '' };
      this.#replicas.push(replica);
      this.#begin(replica);
    }
    await this.#client.connect();
    void this.#follow();
    await this.#checkpointSince(Date.now());
  }

  async #follow(): Promise<void> {
    const { signal } = this.#ending;
    const members = async (): Promise<void> => {
      for await (const now of followedMembers(this.#client, signal)) {
        this.#members = now;
        for (const { id, address } of now) {
          const owner = this.#replicas.find(({ place }) => place.advertise === address);
          if (owner !== undefined) this.#networks.known(id, owner.name);
        }
      }
    };
    const leaders = async (): Promise<void> => {
      for await (const leader of followedLeader<{ address: string }>(this.#client, signal)) {
        // The same one may be told of again.
        if (leader === undefined || leader.epoch === this.#epoch) continue;
        this.#epoch = leader.epoch;
        this.#leader = leader.value.address;
        this.#told.push({ at: Date.now(), what: `epoch ${leader.epoch}` });
        await this.#mark(leader.epoch);
      }
    };
    void this.#register(signal);
    await Promise.all([members(), leaders()]).catch((error) => {
      if (!signal.aborted) this.#told.push({ at: Date.now(), what: `the test lost ZooKeeper: ${error}` });
    });
  }

  /** A node that is created now is younger than the epoch that was heard of, and its transaction says by how much. */
  async #mark(epoch: number): Promise<void> {
    const path = `/marks/${epoch}`;
    await this.#client.make(path);
    const node = await this.#client.get(path);
    if (node !== undefined) this.#epochs.set(epoch, node.stat.czxid);
  }

  /** Every registration, before it is pruned. */
  async #register(signal: AbortSignal): Promise<void> {
    const folder = registryOf(nodeName(this.#trial.settings.workload)).checkpoints;
    while (!signal.aborted) {
      try {
        for (const name of (await this.#client.children(folder)) ?? []) {
          if (this.#registrations.has(Number(name))) continue;
          const node = await this.#client.get(`${folder}/${name}`);
          if (node === undefined) continue;
          const { epoch } = JSON.parse(node.value.toString()) as { epoch: number };
          this.#registrations.set(Number(name), { id: Number(name), epoch, at: node.stat.czxid });
        }
      } catch (error) {
        if (!signal.aborted && !isPassing(error)) this.#told.push({ at: Date.now(), what: `registrations cannot be read: ${error}` });
      }
      await sleep(40);
    }
  }

  /** Checkpoints whose registration was seen. */
  get registered(): number {
    return this.#registrations.size;
  }

  /** Those that have tasks now, by what replicas said last of where they are. */
  #busy(): readonly Replica[] {
    const said = this.#told.filter(({ what }) => what.startsWith('hosts ')).sort((a, b) => b.at - a.at)[0];
    const ids = said?.what.split(' ').slice(1) ?? [];
    const addresses = this.#members.filter(({ id }) => ids.some((each) => id.startsWith(each))).map(({ address }) => address);
    return this.#replicas.filter(({ place }) => addresses.includes(place.advertise));
  }

  #begin(replica: Replica): void {
    const settings: ReplicaSettings = {
      ...this.#trial.settings,
      ...replica.place,
      root: this.#root,
      sessionMs: SESSION_MS,
      slots: 2,
      gate: join(this.#trial.folder, 'gate'),
    };
    const child = this.#networks.spawn(replica.name, [bundled(program), JSON.stringify(settings)]);
    let rest = '';
    child.stdout!.on('data', (data: Buffer) => {
      const lines = (rest + data.toString()).split('\n');
      rest = lines.pop()!;
      for (const line of lines) {
        const [, at, what] = /^at (\d+) (.*)$/.exec(line) ?? [];
        if (what !== undefined) this.#told.push({ at: Number(at), what });
      }
    });
    child.stderr!.on('data', (data: Buffer) => {
      replica.errors = (replica.errors + data.toString()).slice(-4000);
    });
    replica.process = child;
    replica.ended = new Promise((resolve) => child.once('close', () => resolve()));
  }

  /** Does it, and resolves when the job goes on and the cluster is whole again. */
  async suffer(fault: Fault, random: () => number): Promise<{ detectedMs: number | undefined; recoveredMs: number | undefined; hadTasks: boolean }> {
    const leader = this.#replicas.find(({ place }) => place.advertise === this.#leader) ?? this.#replicas[0]!;
    const others = this.#replicas.filter((replica) => replica !== leader);
    // One that has come back gets tasks with the next restart, not before.
    const busy = others.filter((replica) => this.#busy().includes(replica));
    const among = busy.length > 0 ? busy : others;
    const worker = among[Math.floor(random() * among.length)]!;
    const third = others.find((replica) => replica !== worker)!;
    // Of two of which one does nothing, nothing is lost.
    const pair = busy.length === 2 && random() < 0.5 ? ([worker, third] as const) : ([leader, worker] as const);
    // Any moment between two checkpoints.
    await sleep(random() * 400);
    const at = Date.now();
    const epoch = this.#epoch;
    this.#told.push({ at, what: `${fault}; led by ${leader.name}, worker ${worker.name}, parted ${pair.map(({ name }) => name).join(' and ')}` });
    await befall(fault, {
      leader: this.#victim(leader),
      worker: this.#victim(worker),
      third: this.#victim(third),
      pair: [this.#victim(pair[0]), this.#victim(pair[1])],
      networks: this.#networks,
      ensemble: this.#ensemble,
      random,
      goesOn: () => this.#checkpointSince(Date.now()),
      nextLeader: async () => {
        await this.#waits('nobody leads', async () => this.#epoch > epoch && this.#members.some(({ address }) => address === this.#leader));
        return this.#victim(this.#replicas.find(({ place }) => place.advertise === this.#leader)!);
      },
    });
    await this.#whole();
    await this.#checkpointSince(Date.now());
    const after = this.#told.filter((told) => told.at >= at).sort((a, b) => a.at - b.at);
    const detected = after.find(({ what }) => /^(restart|epoch) /.test(what));
    const recovered = detected === undefined ? undefined : after.find((told) => told.at >= detected.at && told.what === 'status running');
    return {
      hadTasks: busy.includes(worker) || this.#busy().includes(worker),
      detectedMs: detected === undefined ? undefined : detected.at - at,
      recoveredMs: detected === undefined || recovered === undefined ? undefined : recovered.at - detected.at,
    };
  }

  #victim(replica: Replica): Victim {
    return {
      name: replica.name,
      signal: (signal) => void replica.process.kill(signal),
      kill: async () => {
        replica.process.kill('SIGKILL');
        await replica.ended;
      },
      begin: () => this.#begin(replica),
    };
  }

  /** The job runs to its end: what is wrong with what it has written. */
  async finish(): Promise<string[]> {
    writeFileSync(join(this.#trial.folder, 'gate'), '');
    const wrong: string[] = [];
    const late = setTimeout(() => {
      wrong.push('the replicas did not end');
      for (const { process } of this.#replicas) process.kill('SIGKILL');
    }, RECOVERY_MS);
    await Promise.all(this.#replicas.map(({ ended }) => ended));
    clearTimeout(late);
    for (const { process, name, errors } of this.#replicas) if (process.exitCode !== 0) wrong.push(`${name} ended with ${process.exitCode}: ${errors}`);
    wrong.push(...this.#trial.wrongRows(), ...deposedRegistrations([...this.#registrations.values()], this.#epochs));
    if (this.#registrations.size === 0) wrong.push('no registration was seen');
    if (wrong.length === 0) this.#trial.remove();
    else wrong.push(`in ${this.#trial.folder}`);
    return wrong;
  }

  async close(): Promise<void> {
    this.#ending.abort();
    for (const { process } of this.#replicas) process.kill('SIGKILL');
    await Promise.all(this.#replicas.map(({ ended }) => ended));
    await this.#networks.mend();
    await this.#client.close();
  }

  /** Every replica is a member. */
  async #whole(): Promise<void> {
    await this.#waits('not all replicas are members', async () =>
      this.#replicas.every(({ place }) => this.#members.some(({ address }) => address === place.advertise)),
    );
  }

  /** A checkpoint that was begun since then is registered. */
  async #checkpointSince(at: number): Promise<void> {
    const folder = registryOf(nodeName(this.#trial.settings.workload)).checkpoints;
    await this.#waits('there is no new checkpoint', async () => {
      const names = await this.#client.children(folder);
      const newest = (names ?? []).sort().at(-1);
      if (newest === undefined) return false;
      const node = await this.#client.get(`${folder}/${newest}`);
      if (node === undefined) return false;
      return startedIn(JSON.parse(node.value.toString())) >= at;
    });
  }

  async #waits(why: string, holds: () => Promise<boolean>): Promise<void> {
    const until = Date.now() + RECOVERY_MS;
    // While a server of the ensemble is away answers may be, too.
    while (!(await holds().catch((error) => (isPassing(error) ? false : Promise.reject(error))))) {
      const gone = this.#replicas.find(({ process }) => process.exitCode !== null);
      if (Date.now() > until || gone !== undefined) {
        const said = this.#told.slice(-20).map(({ at, what }) => `${at} ${what}`);
        throw new Error(
          `${gone === undefined ? why : `${gone.name} has ended`}.\n${said.join('\n')}\n${this.#replicas.map(({ name, errors }) => `${name}: ${errors}`).join('\n')}`,
        );
      }
      await sleep(20);
    }
  }
}

/** When a registered checkpoint was begun. */
function startedIn(value: unknown): number {
  const { startedAt, value: inner } = value as { startedAt?: number; value?: { startedAt?: number } };
  return startedAt ?? inner?.startedAt ?? 0;
}
