// A worker: this process as a member of a cluster. It listens, is connected with the other members, and runs hosts for whoever leads.
//
// Who owns what: the worker owns its id, its listener, its node among the members and the hosts that it runs; the leader says which hosts there are and what runs on
// them (workers.ts). What is said of hosts is its own (worker-mail.ts); any other mail is given to `heard`.
//
// Invariants:
//  K1  What an older epoch than the newest one known asks for is refused. When a newer one is heard of, the hosts of the older leader go on without it, until the new one says
//      which it goes on with (standing.ts); when it begins anything of the job, or after `aloneMs`, the others end.
//  K2  A host whose leader lets go of it ends; one that has lost the connection to it goes on as in K1, until that leader is connected again: then it has given it up (host.ts, H3).
//  K3  Who draws the number of a part of a connection: at the side that dialed odd ones, at the other one even ones. So none is used twice, whoever led when.
//  K4  Whoever asks is answered, or told in a bounded time that there was no answer.
//  K5  LINK_LOST says that two workers have no connection, or have lost it. One that is connected and does not answer in time is busy: it is not taken for unreachable.

import { randomBytes } from 'node:crypto';
import { MessageChannel } from 'node:worker_threads';
import type { StateBackend } from '../../state-backends/index.ts';
import { asError, MillraceError, messageOf } from '../errors.ts';
import type { Logger } from '../graph/context.ts';
import type { Node } from '../graph/node.ts';
import { buildGraph } from '../graph/plan.ts';
import type { Io } from '../runtime/io.ts';
import type { OperatorFactory } from '../runtime/operator.ts';
import type { SnapshotStorage } from '../runtime/snapshot.ts';
import { errorData, errorOf } from './host-mail.ts';
import { MemberList } from './member-list.ts';
import { Mesh } from './mesh.ts';
import type { StandingHost } from './standing.ts';
import type { TlsOptions } from './transport/certificates.ts';
import { type Connection, Connections } from './transport/connections.ts';
import { type Link, linkLost } from './transport/link.ts';
import { localLinks } from './transport/local-link.ts';
import { hostHere, hostInThread, type WorkerHost } from './worker-host.ts';
import { type HostName, isWorkerMail, type JobName, keyOf, type Settled, type WorkerAnswers, type WorkerAsk, type WorkerMail } from './worker-mail.ts';
import type { Client } from './zookeeper/client.ts';
import { deposed } from './zookeeper/election.ts';
import { join, type Member, type MemberDoor, type Membership } from './zookeeper/membership.ts';

/** What a host of a job is made from. */
export interface WorkerJob {
  readonly definition: { readonly name: string; build(): Node[] };
  /** What members compare: `planHashOf`. */
  readonly planHash: string;
  /** How many slots it takes at least; default 1. */
  readonly needs?: number | undefined;
  readonly backend: StateBackend;
  readonly storage: SnapshotStorage | undefined;
  /** The same as data (thread-data.ts), where hosts run in threads. */
  readonly data?: object | undefined;
}

export interface WorkerOptions {
  readonly client: Client;
  /** Unlike any other's; drawn at random by default. */
  readonly id?: string | undefined;
  /** By name; `add` brings more. */
  readonly jobs: ReadonlyMap<string, WorkerJob>;
  readonly operators: (node: Node) => OperatorFactory;
  /** How many tasks of one vertex it takes; default 1. */
  readonly slots?: number | undefined;
  /** Threads that hosts run in, and what those run (src/thread-main.ts); by default hosts run in this one. */
  readonly threads?: { readonly count: number; readonly entry: URL } | undefined;
  /** Where it listens; default 127.0.0.1 and a free port. `advertise`: where others reach it, `host` or `host:port`. */
  readonly host?: string | undefined;
  readonly port?: number | undefined;
  readonly advertise?: string | undefined;
  readonly secret?: string | undefined;
  readonly tls?: TlsOptions | undefined;
  /** A name that all workers of the cluster have in common; default ''. */
  readonly cluster?: string | undefined;
  /** Of Millrace. */
  readonly version: string;
  /** The newest epoch of a leader that is known otherwise; `leads` tells of a new one at once. */
  readonly epoch: () => number;
  /** Mail that is not about hosts; with the id of the worker that sent it. */
  readonly heard: (worker: string, message: unknown) => void;
  readonly io: Io;
  readonly log: Logger;
  /** Milliseconds of silence on a connection before the other side is taken for dead; default: as long as a session with ZooKeeper lasts. */
  readonly deadAfter?: number | undefined;
  /** Milliseconds without a turn of its event loop after which a host's thread is taken for an endless loop; default 30,000. */
  readonly stallMs?: number | undefined;
  /** Milliseconds that a host goes on without a leader; default: two sessions with ZooKeeper and 5,000, in which another one is elected and has asked. */
  readonly aloneMs?: number | undefined;
}

/** A host that was begun, as the leader holds it. */
export interface BegunHost {
  /** The leader's end. */
  readonly link: Link;
  /** Settles when it has ended; of a host elsewhere when its link has. */
  readonly ended: Promise<unknown>;
  /** Why, as far as its worker has said. */
  cause(): Error | undefined;
}

/** How long a module may take to load, and a state directory to open. */
const BEGIN_MS = 60_000;
/** How long two workers may take to join two hosts. */
const JOIN_MS = 5000;
/** Of that, how long the dialer waits for a connection, which is soon back where it can be, and then for the acceptor. */
const CONNECTED_MS = 1500;
const PART_MS = 3000;
const TELL_MS = 10_000;
const END_MS = 10_000;
/** How long a host may take to say what goes on there. */
const STANDING_MS = 2000;
/** Between signs of life, and how many of them are missed by one who is dead. */
const HEARTBEAT_MS = 1000;
const BEATS = 10;

interface Held {
  name: HostName;
  readonly host: WorkerHost;
  /** The worker that leads it. */
  leader: string;
  failed: (error: MillraceError) => void;
}

interface Asked {
  readonly worker: string;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
}

/** What members compare to know that they run the same program; the same at any parallelism. `version`: what the program says of itself, or that of its code (code-version.ts). */
export function planHashOf(definition: { build(): Node[] }, version: string | undefined): string {
  return buildGraph(definition.build(), { parallelism: 1, version }).plan.hash;
}

export class Worker {
  readonly id: string;
  readonly connections: Connections;
  readonly #options: WorkerOptions;
  readonly #log: Logger;
  readonly #mesh: Mesh;
  readonly #ended = new AbortController();
  readonly #jobs: Map<string, WorkerJob>;
  readonly #doors = new Map<string, MemberDoor>();
  readonly #hosts = new Map<string, Held>();
  /** With the end of the leader's link here. */
  readonly #beginning = new Map<Promise<unknown>, Link>();
  readonly #asked = new Map<number, Asked>();
  /** By host that this worker, as a leader, has begun and that has not ended: why it is about to. */
  readonly #causes = new Map<string, Error | undefined>();
  /** K3: by connection, the last number drawn. */
  readonly #drawn = new WeakMap<Connection, number>();
  readonly #changes = new Set<() => void>();
  #members!: MemberList;
  #membership!: Membership;
  #member!: Member;
  #asks = 0;
  #epoch = 0;
  #closing: Promise<void> | undefined;

  /** Resolves when it is a member. Throws PORT_IN_USE, OPTION_INVALID, and what ZooKeeper says. */
  static async open(options: WorkerOptions): Promise<Worker> {
    await options.client.connect();
    const worker = new Worker(options);
    try {
      await worker.#open();
    } catch (error) {
      await worker.close();
      throw error;
    }
    return worker;
  }

  private constructor(options: WorkerOptions) {
    this.id = options.id ?? randomBytes(8).toString('hex');
    this.#options = options;
    this.#log = options.log.child?.({ worker: this.id }) ?? options.log;
    this.#jobs = new Map(options.jobs);
    const { host, port, secret, tls, client, deadAfter = client.sessionTimeoutMs } = options;
    this.connections = new Connections({
      // Which programs a member runs says its node: who leads gives those of others no tasks, and speaks to them all the same.
      hello: () => ({ cluster: options.cluster ?? '', worker: this.id, epoch: this.epoch, plans: [] }),
      secret,
      tls,
      host,
      port,
      heartbeat: Math.min(HEARTBEAT_MS, deadAfter / BEATS),
      deadAfter,
      log: this.#log,
      mail: (worker, message) => this.#receive(worker, message),
      connected: (connection) => {
        // K2.
        for (const held of this.#hosts.values())
          if (held.leader === connection.worker && held.name.epoch === this.epoch) void held.host.leader.closed.then(() => held.host.end());
        this.#mesh.established(connection);
      },
    });
    this.#mesh = new Mesh({ id: this.id, connections: this.connections, log: this.#log, changed: () => this.#tellChanged() });
  }

  async #open(): Promise<void> {
    const { client, slots = 1, threads, version } = this.#options;
    const log = this.#log;
    if (!Number.isInteger(slots) || slots < 0) throw new MillraceError('OPTION_INVALID', `slots ${slots}: it is a whole number from 0 on.`);
    const address = addressOf(await this.connections.listen(), this.#options.advertise);
    const hosts = threads === undefined || threads.count < 2 ? {} : { hosts: threads.count };
    this.#member = { id: this.id, address, slots, version, ...this.#programs(), ...hosts };
    this.#membership = await join(client, this.#member);
    this.#members = await MemberList.follow(client, this.#ended.signal, {
      log,
      changed: () => {
        // The first set comes before the list does.
        if (this.#members !== undefined) this.#mesh.follow(this.#members.now);
        this.#tellChanged();
      },
    });
    this.#mesh.follow(this.#members.now);
  }

  /** What it says of itself to the others. */
  get member(): Member {
    return this.#member;
  }

  /** The newest epoch that it knows of. */
  get epoch(): number {
    return Math.max(this.#epoch, this.#options.epoch());
  }

  /** All that are listed now. */
  members(): readonly Member[] {
    return this.#members.now;
  }

  /** Whether mail goes there now. */
  reaches(worker: string): boolean {
    return worker === this.id || this.#mesh.standing(worker) !== undefined;
  }

  /** Resolves at the next change of the members or of who is connected, and when the signal aborts. Of a worker that has left nothing changes any more. */
  changed(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        this.#changes.delete(done);
        signal.removeEventListener('abort', done);
        resolve();
      };
      this.#changes.add(done);
      signal.addEventListener('abort', done, { once: true });
      if (signal.aborted) done();
    });
  }

  /** Another job that it can run. */
  async add(name: string, job: WorkerJob): Promise<void> {
    this.#jobs.set(name, job);
    await this.#update();
  }

  /** Where that job's control door is. `everywhere`: it listens at every address, and is reached as the worker is. */
  async announce(name: string, { url, id }: MemberDoor, everywhere: boolean): Promise<void> {
    const door = new URL(url);
    if (everywhere) door.hostname = new URL(`http://${this.#member.address}`).hostname;
    this.#doors.set(name, { url: door.origin, id });
    await this.#update();
  }

  /** Its hosts for that job end with their leader, and no others begin. */
  async remove(name: string): Promise<void> {
    this.#doors.delete(name);
    if (this.#jobs.delete(name)) await this.#update();
  }

  async #update(): Promise<void> {
    this.#member = { ...this.#member, ...this.#programs() };
    await this.#membership.update(this.#member);
  }

  #programs(): Pick<Member, 'plans' | 'needs' | 'doors'> {
    const jobs = [...this.#jobs];
    return {
      plans: Object.fromEntries(jobs.map(([name, { planHash }]) => [name, planHash])),
      needs: Object.fromEntries(jobs.map(([name, { needs = 1 }]) => [name, needs])),
      doors: Object.fromEntries(this.#doors),
    };
  }

  /** K1: a leader of that epoch was heard of. */
  leads(epoch: number): void {
    if (epoch <= this.#epoch) return;
    this.#epoch = epoch;
    for (const { name, host } of this.#hosts.values()) if (name.epoch < epoch) host.leader.close(deposed(name.epoch));
  }

  /** Where mail to `heard` of that other worker goes, and when it is lost. @throws LINK_LOST where it is not connected in time */
  async line(
    worker: string,
    { withinMs = TELL_MS }: { readonly withinMs?: number } = {},
  ): Promise<{ tell(message: unknown): void; readonly lost: Promise<MillraceError | undefined> }> {
    const { channels, lost } = await this.#mesh.to(worker, withinMs);
    return { tell: (message) => channels.tell(message), lost };
  }

  /**
   * Mail to `heard` of that worker, this one included; gives what `over` does for as long as the connection stands that it went over.
   * @throws LINK_LOST where it is not connected in time; what was sent may be lost with the connection.
   */
  async tell(worker: string, message: unknown, { withinMs = TELL_MS }: { readonly withinMs?: number } = {}): Promise<object> {
    if (worker === this.id) {
      setImmediate(() => this.#options.heard(this.id, message));
      return this;
    }
    const connection = await this.#mesh.to(worker, withinMs);
    connection.channels.tell(message);
    return connection;
  }

  /** What mail to that worker goes over now: another object where the connection is another one; undefined: there is none. */
  over(worker: string): object | undefined {
    return worker === this.id ? this : this.#mesh.standing(worker);
  }

  // ── as a leader ──

  /** A host on that worker. @throws what prevents it */
  async beginHost(worker: string, name: HostName): Promise<BegunHost> {
    this.leads(name.epoch);
    const key = keyOf(name);
    if (worker === this.id) {
      const [ours, theirs] = localLinks(this.id, this.id);
      let isLate = false;
      // One that has no leader any more ends, also while it begins.
      const late = setTimeout(() => {
        isLate = true;
        ours.close();
      }, BEGIN_MS);
      try {
        const { ended } = await this.#begin(name, theirs, this.id, (error) => this.#causes.set(key, error));
        return this.#begun(name, ours, ended);
      } catch (error) {
        ours.close();
        throw isLate ? notBegun(name, error) : error;
      } finally {
        clearTimeout(late);
      }
    }
    const connection = await this.#mesh.to(worker, JOIN_MS);
    const part = this.#draw(connection);
    const link = connection.part(part);
    try {
      await this.#ask(connection, { kind: 'begin', part, ...name }, BEGIN_MS);
    } catch (error) {
      link.close();
      throw error;
    }
    this.#causes.set(key, undefined);
    return this.#begun(name, link, link.closed);
  }

  #begun(name: HostName, link: Link, ended: Promise<unknown>): BegunHost {
    const key = keyOf(name);
    let known: Error | undefined;
    void link.closed.then(() => {
      known = this.#causes.get(key);
      this.#causes.delete(key);
    });
    return { link, ended, cause: () => known ?? this.#causes.get(key) };
  }

  /** What goes on at that worker of a job whose leader is gone. @throws what prevents an answer */
  async standing(worker: string, job: JobName, withinMs: number): Promise<readonly StandingHost[]> {
    this.leads(job.epoch);
    if (worker === this.id) return this.#standing(job);
    return (await this.#ask(await this.#mesh.to(worker, withinMs), { kind: 'standing', ...job }, withinMs)) as WorkerAnswers['standing'];
  }

  /** Goes on with those hosts of that worker; any other one of older leaders of the job ends there. Those that do not go on are missing. @throws what prevents an answer */
  async settle(worker: string, job: JobName, hosts: readonly Omit<Settled, 'part'>[]): Promise<ReadonlyMap<number, BegunHost>> {
    const links = new Map<number, Link>();
    let settled: readonly number[];
    if (worker === this.id) {
      const ends = new Map(hosts.map(({ host }) => [host, localLinks(this.id, this.id)]));
      for (const [host, [ours]] of ends) links.set(host, ours);
      const causes = (host: number) => (error: MillraceError) => void this.#causes.set(keyOf({ ...job, host }), error);
      settled = await this.#settle(
        job,
        hosts.map((host) => ({ ...host, leader: ends.get(host.host)![1], worker, failed: causes(host.host) })),
      );
    } else {
      const connection = await this.#mesh.to(worker, JOIN_MS);
      const parts = hosts.map((host) => ({ ...host, part: this.#draw(connection) }));
      for (const { host, part } of parts) links.set(host, connection.part(part));
      try {
        settled = (await this.#ask(connection, { kind: 'settle', ...job, settled: parts }, END_MS * 1.5)) as WorkerAnswers['settle'];
      } catch (error) {
        for (const link of links.values()) link.close();
        throw error;
      }
    }
    for (const [host, link] of links) if (!settled.includes(host)) link.close();
    return new Map(
      settled.map((host) => {
        const name = { ...job, host };
        const link = links.get(host)!;
        this.#causes.set(keyOf(name), undefined);
        const mine = worker === this.id ? this.#hosts.get(keyOf(name))?.host.ended : undefined;
        return [host, this.#begun(name, link, mine ?? link.closed)];
      }),
    );
  }

  /** Two hosts, on the same worker or on two, share channels from now on; `link` is told of where they are lost. @throws what prevents it */
  async joinHosts(
    { job, epoch }: { readonly job: string; readonly epoch: number },
    link: number,
    one: { readonly worker: string; readonly host: number },
    other: { readonly worker: string; readonly host: number },
  ): Promise<void> {
    // The dialer has it done: it knows their connection, or waits for it.
    const [from, to] = one.worker <= other.worker ? [one, other] : [other, one];
    const wanted = { kind: 'join', job, epoch, link, host: from.host, peer: to.host, worker: to.worker } as const;
    if (from.worker === this.id) await this.#join({ of: 'hosts', ask: -1, ...wanted });
    else await this.#ask(await this.#mesh.to(from.worker, JOIN_MS), wanted, JOIN_MS);
  }

  /** A host of which nothing is heard any more. */
  endHost(worker: string, name: HostName): void {
    if (worker === this.id) this.#endHost(name);
    else this.#mesh.standing(worker)?.channels.tell({ of: 'hosts', kind: 'end', ...name } satisfies WorkerMail);
  }

  // ── as one who is asked ──

  #receive(worker: string, message: unknown): void {
    if (!isWorkerMail(message)) {
      this.#options.heard(worker, message);
      return;
    }
    const connection = this.#mesh.standing(worker);
    if (connection === undefined) return;
    if (message.kind === 'answer') {
      const asked = this.#asked.get(message.ask);
      if (asked?.worker !== worker) return;
      this.#asked.delete(message.ask);
      if (message.error === undefined) asked.resolve(message.value);
      else asked.reject(errorOf(message.error));
    } else if (message.kind === 'end') {
      if (message.epoch >= this.epoch) this.#endHost(message);
    } else if (message.kind === 'failed') {
      const key = keyOf(message);
      // Of one that nobody here has begun, or that has ended, nothing is kept.
      if (this.#causes.has(key)) this.#causes.set(key, errorOf(message.error));
    } else {
      const answer = (value: unknown, error?: unknown): void =>
        connection.channels.tell({
          of: 'hosts',
          kind: 'answer',
          ask: message.ask,
          ...(error === undefined ? { value } : { error: errorData(error) }),
        } satisfies WorkerMail);
      this.#do(message, connection).then(
        (value) => answer(value),
        (error: unknown) => {
          this.#log.warn({ job: message.job, error: messageOf(error) }, `What the leader wanted was not done: ${message.kind}.`);
          answer(undefined, error);
        },
      );
    }
  }

  async #do(mail: WorkerAsk, connection: Connection): Promise<unknown> {
    const { job, epoch } = mail;
    const failed = (host: number) => (error: MillraceError) =>
      connection.channels.tell({ of: 'hosts', kind: 'failed', job, epoch, host, error: errorData(error) } satisfies WorkerMail);
    switch (mail.kind) {
      case 'begin': {
        const leader = connection.part(mail.part);
        try {
          await this.#begin(mail, leader, connection.worker, failed(mail.host));
        } catch (error) {
          leader.close();
          throw error;
        }
        return undefined;
      }
      case 'join':
        return this.#join(mail);
      case 'part':
        return joined(connection.part(mail.part), (link) => this.#held(mail).join(mail.peer, link, mail.link));
      case 'standing':
        return this.#standing(mail);
      case 'settle': {
        const { worker } = connection;
        const adoptions = mail.settled.map((each) => ({ ...each, leader: connection.part(each.part), worker, failed: failed(each.host) }));
        return this.#settle(mail, adoptions);
      }
    }
  }

  async #begin(name: HostName, leader: Link, by: string, failed: (error: MillraceError) => void): Promise<WorkerHost> {
    this.#refuseOld(name);
    await this.#endOld(name.job, name.epoch);
    const { job: jobName, host: number } = name;
    const job = this.#jobs.get(jobName);
    if (job === undefined || this.#ended.signal.aborted)
      throw new MillraceError('HOST_LOST', `The worker ${this.member.address} does not run the job '${jobName}'${job === undefined ? '' : ' any more'}.`);
    const { threads, operators, io, client, stallMs, aloneMs = client.sessionTimeoutMs * 2 + 5000 } = this.#options;
    const { definition, backend, storage, data } = job;
    const held: Omit<Held, 'host'> = { name, leader: by, failed };
    const told = (error: MillraceError): void => held.failed(error);
    const beginning =
      threads === undefined || threads.count === 0
        ? Promise.resolve(hostHere({ job: definition, operators, number, backend, storage, io, leader, aloneMs, log: this.#log }))
        : hostInThread({ number, entry: threads.entry, data: data!, leader, aloneMs, log: this.#log, stallMs, failed: told });
    this.#beginning.set(beginning, leader);
    let host: WorkerHost;
    try {
      host = await beginning;
    } finally {
      this.#beginning.delete(beginning);
    }
    const begun = Object.assign(held, { host });
    this.#hosts.set(keyOf(name), begun);
    void host.ended.then(() => {
      const key = keyOf(begun.name);
      if (this.#hosts.get(key)?.host === host) this.#hosts.delete(key);
    });
    // While its module was loaded another leader may have been elected, or this worker have been told to leave.
    if (name.epoch < this.epoch || this.#ended.signal.aborted) {
      host.end();
      this.#refuseOld(name);
    }
    return host;
  }

  /** One of ours with one of another worker, or with another one of ours. */
  async #join(mail: Extract<WorkerMail, { kind: 'join' }>): Promise<void> {
    const { worker, peer, link } = mail;
    const host = this.#held(mail);
    if (worker === this.id) {
      const { port1, port2 } = new MessageChannel();
      await Promise.all([host.join(peer, port1, link), this.#held({ ...mail, host: peer }).join(mail.host, port2, link)]);
      return;
    }
    const connection = await this.#mesh.to(worker, CONNECTED_MS);
    const part = this.#draw(connection);
    const { job, epoch } = mail;
    await joined(connection.part(part), async (over) => {
      await host.join(peer, over, link);
      await this.#ask(connection, { kind: 'part', job, epoch, host: peer, peer: mail.host, link, part }, PART_MS);
    });
  }

  #endHost(name: HostName): void {
    this.#hosts.get(keyOf(name))?.host.end();
  }

  #of(job: string): Held[] {
    return [...this.#hosts.values()].filter(({ name }) => name.job === job);
  }

  /** K1: its hosts of older leaders, as far as they answer. */
  async #standing({ job, epoch }: JobName): Promise<StandingHost[]> {
    this.#refuseOld({ job, epoch });
    const standing = await Promise.all(
      this.#of(job)
        .filter(({ name }) => name.epoch < epoch)
        .map(async ({ name, host }) => {
          const found = await withinTime(host.standing(), STANDING_MS).catch((error) => {
            this.#log.warn({ job, host: name.host, error: messageOf(error) }, 'What goes on in a host is not known: it is begun anew.');
            return undefined;
          });
          return found === undefined ? [] : [{ ...found, host: name.host, epoch: name.epoch }];
        }),
    );
    return standing.flat();
  }

  /** K1: numbers of those that are that leader's now. */
  async #settle({ job, epoch }: JobName, settled: readonly Adoption[]): Promise<number[]> {
    this.#refuseOld({ job, epoch });
    const adopted: number[] = [];
    const adopt = async ({ host: number, epoch: was, parts, leader, worker, failed }: Adoption): Promise<void> => {
      const held = this.#hosts.get(keyOf({ job, epoch: was, host: number }));
      try {
        if (held === undefined) throw new MillraceError('HOST_LOST', `The worker ${this.member.address} has no host ${number} of the job '${job}' any more.`);
        await withinTime(held.host.adopt(leader, parts), STANDING_MS);
      } catch (error) {
        this.#log.warn({ job, host: number, error: messageOf(error) }, 'A host does not go on under another leader: what ran there is begun anew.');
        leader.close();
        return;
      }
      this.#hosts.delete(keyOf(held.name));
      held.name = { job, epoch, host: number };
      held.leader = worker;
      held.failed = failed;
      this.#hosts.set(keyOf(held.name), held);
      adopted.push(number);
    };
    await Promise.all(settled.map(adopt));
    await this.#endOld(job, epoch);
    // Meanwhile another leader may have been elected.
    this.#refuseOld({ job, epoch });
    return adopted;
  }

  /** K1, K2: those of a job that have no leader any more; what they hold is free, or not for a long time. */
  async #endOld(job: string, epoch: number): Promise<void> {
    const old = this.#of(job).filter(({ name }) => name.epoch < epoch);
    for (const { host } of old) host.end();
    await withinTime(Promise.all(old.map(({ host }) => host.ended)), END_MS).catch(() =>
      this.#log.warn({ job }, 'A host of an older leader has not ended yet.'),
    );
  }

  #held(name: HostName): WorkerHost {
    this.#refuseOld(name);
    const held = this.#hosts.get(keyOf(name));
    if (held === undefined) throw new MillraceError('HOST_LOST', `The worker ${this.member.address} has no host ${name.host} of the job '${name.job}'.`);
    return held.host;
  }

  /** K1. */
  #refuseOld({ epoch }: JobName): void {
    this.leads(epoch);
    if (epoch < this.epoch) throw deposed(epoch);
  }

  /** K4. */
  #ask(connection: Connection, mail: DistributiveOmit<WorkerAsk, 'of' | 'ask'>, withinMs: number): Promise<unknown> {
    const { worker } = connection;
    this.#asks += 1;
    const ask = this.#asks;
    return new Promise((resolve, reject) => {
      const over = (): void => {
        clearTimeout(late);
        this.#asked.delete(ask);
      };
      const failed = (error: unknown): void => {
        over();
        reject(asError(error));
      };
      const late = setTimeout(
        () => failed(mail.kind === 'join' || mail.kind === 'part' ? busy(worker, withinMs) : linkLost(worker, `it has not answered for ${withinMs} ms`)),
        withinMs,
      );
      this.#asked.set(ask, {
        worker,
        resolve: (value) => {
          over();
          resolve(value);
        },
        reject: failed,
      });
      void connection.lost.then((error) => failed(error ?? linkLost(worker, 'it is leaving')));
      connection.channels.tell({ of: 'hosts', ask, ...mail } as WorkerMail);
    });
  }

  /** K3. */
  #draw(connection: Connection): number {
    const next = (this.#drawn.get(connection) ?? (this.id < connection.worker ? -1 : 0)) + 2;
    this.#drawn.set(connection, next);
    return next;
  }

  #tellChanged(): void {
    for (const done of [...this.#changes]) done();
  }

  /** Leaves: no member any more, its hosts end, and its connections. Resolves when nothing of it is left. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#ended.abort();
    this.#tellChanged();
    await this.#membership?.leave().catch((error) => this.#log.warn({ error: messageOf(error) }, 'This worker could not say that it leaves.'));
    for (const leader of this.#beginning.values()) leader.close();
    await Promise.allSettled(this.#beginning.keys());
    const hosts = [...this.#hosts.values()];
    for (const { host } of hosts) host.end();
    let late: NodeJS.Timeout | undefined;
    await Promise.race([
      Promise.all(hosts.map(({ host }) => host.ended)),
      new Promise<void>((resolve) => {
        late = setTimeout(resolve, END_MS * 1.5);
      }),
    ]);
    clearTimeout(late);
    this.#mesh.close();
    await this.connections.close();
  }
}

/** A host that another leader goes on with, and its end of the link to that. */
interface Adoption extends Omit<Settled, 'part'> {
  readonly leader: Link;
  readonly worker: string;
  readonly failed: (error: MillraceError) => void;
}

/** Rejects where it has not settled by then; what comes later is nobody's. */
async function withinTime<T>(work: Promise<T>, ms: number): Promise<T> {
  let late: NodeJS.Timeout | undefined;
  try {
    return await Promise.race([
      work,
      new Promise<never>((_, reject) => {
        late = setTimeout(() => reject(new MillraceError('HOST_LOST', `There was no answer within ${ms} ms.`)), ms);
      }),
    ]);
  } finally {
    clearTimeout(late);
  }
}

type DistributiveOmit<T, K extends PropertyKey> = T extends unknown ? Omit<T, K> : never;

/** A link for a pair of hosts; of one that could not be joined nothing stays. */
async function joined(link: Link, join: (link: Link) => Promise<void>): Promise<void> {
  try {
    await join(link);
  } catch (error) {
    link.close();
    throw error;
  }
}

/** K5. */
function busy(worker: string, ms: number): MillraceError {
  return new MillraceError('HOST_LOST', `Hosts of the worker ${worker} could not be joined within ${ms} ms: it is connected, and one of them gave no turn.`, {
    todo: 'Nothing: it is tried again. Where it stays so, look for functions of the job that take long.',
  });
}

function notBegun({ job, host }: HostName, cause: unknown): MillraceError {
  return new MillraceError('HOST_LOST', `Host ${host} of the job '${job}' has not begun within ${BEGIN_MS / 1000} s.`, {
    cause,
    todo: "Look at what the job's module does while it is loaded.",
  });
}

/** `host:port` as others reach it. */
function addressOf({ host, port }: { readonly host: string; readonly port: number }, advertise: string | undefined): string {
  if (advertise !== undefined) return /:\d+$/.test(advertise) ? advertise : `${advertise}:${port}`;
  if (host === '0.0.0.0' || host === '::')
    throw new MillraceError('OPTION_INVALID', `A worker that listens at every address of its machine (${host}) has to say at which one others reach it.`, {
      todo: 'Give `advertise`: a name or an address, with or without a port.',
    });
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}
