// The members' hosts as one job's leader uses them, for one term.
//
// Who owns what: the leader places tasks, begins hosts where it needs some and joins them pairwise; a worker owns what runs on it (worker.ts). Hosts stay for as long as
// their worker is reached, from attempt to attempt.
//
// Invariants:
//  W1  Parts are opened when every host that has some is begun and linked with each other one of them.
//  W2  A host is lost with its member or the connection to it, once: its parts are told, and the next attempt has another one. Nothing of a lost host is used again.
//  W3  Two hosts whose link is gone take down the regions that have tasks at both, and are joined anew by the next attempt.
//  W4  Whoever waits for slots waits for as long as the job runs, or until the job would do with fewer; whatever else is waited for is bounded.
//      Hosts are watched until they are closed, also while the job ends: what ends it waits for their answers.
//  W5  A host that gives no answer for STALL_MS is taken for an endless loop and is ended.
//  W6  A member that is gone, or cannot be reached, is nobody's fault (restarts.ts, R1), and counts as a process that is lost (losses.ts). A thread that its worker says
//      has failed, or that hangs, is the program's.
//  W7  What still runs of a leader that is gone is asked for once, before anything of the job is begun, of every member that is connected or soon is; one that does not answer
//      has nothing. What is gone on with is held as if it had been begun here (standing.ts).

import { asError, codeOf, isDeposed, MillraceError, messageOf } from '../errors.ts';
import type { Hosts, StandingQuestion, StandingRegion } from '../execution/region.ts';
import type { PartOptions, RegionPart } from '../execution/region-part.ts';
import { type PlannedTask, tasksOfRegion } from '../execution/region-tasks.ts';
import type { Logger } from '../graph/context.ts';
import type { Io } from '../runtime/io.ts';
import { HostLink } from './host-link.ts';
import { errorOf } from './host-mail.ts';
import { RemotePart } from './remote-part.ts';
import { openParts, partRequest } from './remote-parts.ts';
import { type KeptRegion, type Reported, regionsKept, type StandingHost } from './standing.ts';
import type { BegunHost, Worker } from './worker.ts';
import { placeOnWorkers, type Room, type Spot, slotsOf, widthOf, withoutConflicts } from './worker-placement.ts';
import type { Member } from './zookeeper/membership.ts';

export interface WorkersOptions {
  /** The leader's own. */
  readonly worker: Pick<Worker, 'id' | 'members' | 'reaches' | 'changed' | 'beginHost' | 'joinHosts' | 'endHost' | 'standing' | 'settle'>;
  readonly job: string;
  /** Members with another one for this job get no tasks. */
  readonly planHash: string;
  /** Of the term. */
  readonly epoch: number;
  readonly io: Io;
  readonly log: Logger;
  /** Milliseconds; see STALL_MS. */
  readonly stallMs?: number | undefined;
}

/** How long a member that is listed and not connected is waited for, where there are slots enough without it. */
const GRACE_MS = 1000;
/** How long a pair of workers that could not reach each other is kept apart. */
const APART_MS = 30_000;
/** A host that answers nothing for so long is taken for an endless loop. A worker that sees that one of its threads hangs says where, which is worth a moment more. */
const STALL_MS = 35_000;
const BEAT_MS = 1000;
/** Longer than a worker waits before it ends a thread itself. */
const END_MS = 15_000;
/** How often hosts are begun and joined for one attempt, where workers go meanwhile. */
const TRIES = 3;
/** How long a worker may take to say what goes on there (worker.ts waits for its hosts for less). */
const STANDING_MS = 4000;

interface Begun {
  readonly number: number;
  readonly member: Member;
  readonly index: number;
  readonly host: HostLink;
  readonly ended: Promise<unknown>;
  alive: boolean;
}

/** Drawn by all leaders of this process: one that is tried again in the same term names other hosts than before. */
let hostNumbers = 0;

/** A joined pair of hosts. */
interface Pair {
  readonly by: number;
  readonly done: Promise<void>;
}

export class Workers implements Hosts {
  readonly #options: WorkersOptions;
  readonly #hosts = new Map<number, Begun>();
  /** By worker and index. */
  readonly #at = new Map<string, Promise<Begun>>();
  readonly #pairs = new Map<string, Pair>();
  /** When two workers could not reach each other, by `elapsed`. */
  readonly #apart = new Map<string, { readonly pair: readonly [string, string]; readonly at: number }>();
  /** Where each task was last. */
  readonly #last = new Map<string, string>();
  /** Since when, by `elapsed`, a member is listed that is not connected. */
  readonly #missedSince = new Map<string, number>();
  /** W6. */
  readonly #losses = new WeakSet<Error>();
  /** The job ends: nobody waits for hosts any more. */
  readonly #closing = new AbortController();
  readonly #closed = new AbortController();
  #gone: ((worker: string) => void) | undefined;
  #links = 0;
  /** W7. */
  #kept: ReadonlyMap<number, KeptRegion> = new Map();
  #reported: readonly Reported[] = [];
  #beat: unknown;
  #watching: Promise<void> | undefined;

  constructor(options: WorkersOptions) {
    this.#options = options;
  }

  /** Throws JOB_ENDED where it is ended meanwhile, and what prevents it. */
  async parts(options: PartOptions): Promise<readonly RegionPart[]> {
    this.#refuseEnded();
    this.#watching ??= this.#watch();
    const { graph } = options;
    const hosts = await this.#ready(tasksOfRegion(graph, options.number), () => this.#refuseTooMany(options));
    const used = [...new Set(hosts.values())];
    const gone = used.find(({ alive }) => !alive);
    if (gone !== undefined) throw this.#lossOf(gone.member);
    const request = partRequest(options, new Map([...hosts].map(([task, { number }]) => [task, number])));
    const parts = await this.#unlessCeased(
      openParts(
        used.map(({ host, number }) => ({ host, number })),
        request,
        options,
      ),
    );
    for (const [task, { member }] of hosts) this.#last.set(task, member.id);
    return parts;
  }

  // ── from a leader that is gone ──

  /** W7. */
  async standing(question: StandingQuestion): Promise<ReadonlyMap<number, StandingRegion>> {
    const { worker, job, epoch, log } = this.#options;
    for (let grace = this.#graceLeft(); grace > 0; grace = this.#graceLeft()) await this.#change(grace);
    const answers = await this.#unlessCeased(
      Promise.all(
        this.#rooms().map(async (room) => {
          try {
            return (await worker.standing(room.worker, { job, epoch }, STANDING_MS)).map((host) => ({ worker: room.worker, host }));
          } catch (error) {
            log.warn({ worker: room.worker, error: messageOf(error) }, 'What still runs at a worker is not known: it is begun anew.');
            return [];
          }
        }),
      ),
    );
    this.#reported = answers.flat();
    this.#kept = regionsKept(this.#reported, question);
    return this.#kept;
  }

  /** W7: goes on with those regions, and ends whatever else was reported. Gives those that do go on. */
  async settle(regions: ReadonlySet<number>): Promise<ReadonlySet<number>> {
    const { worker, job, epoch, log } = this.#options;
    this.#kept = new Map([...this.#kept].filter(([region]) => regions.has(region)));
    const partsAt = (at: string, { host, epoch: was }: StandingHost): string[] =>
      [...this.#kept.values()].flatMap(({ hosts, part }) =>
        hosts.some((each) => each.worker === at && each.host.host === host && each.host.epoch === was) ? [part] : [],
      );
    const workers = new Set([...this.#rooms(), ...this.#reported].map((each) => each.worker));
    await this.#unlessCeased(
      Promise.all(
        [...workers].map(async (id) => {
          const hosts = this.#reported.flatMap((each) => {
            const parts = each.worker === id ? partsAt(id, each.host) : [];
            return parts.length === 0 ? [] : [{ host: each.host.host, epoch: each.host.epoch, parts }];
          });
          try {
            let index = 0;
            for (const [number, begun] of await worker.settle(id, { job, epoch }, hosts)) {
              const spot = { worker: id, index };
              hostNumbers = Math.max(hostNumbers, number);
              this.#at.set(spotKey(spot), Promise.resolve(this.#hold(spot, number, begun)));
              index += 1;
            }
          } catch (error) {
            log.warn({ worker: id, error: messageOf(error) }, 'What ran at a worker does not go on, and is begun anew.');
          }
        }),
      ),
    );
    this.#keepPairs();
    const isHeld = ({ hosts }: KeptRegion): boolean => hosts.every(({ host }) => this.#hosts.get(host.host)?.alive === true);
    for (const kept of this.#kept.values()) {
      if (isHeld(kept)) continue;
      for (const { host } of kept.hosts) this.#hosts.get(host.host)?.host.tell({ kind: 'close', part: kept.part });
    }
    this.#kept = new Map([...this.#kept].filter(([, kept]) => isHeld(kept)));
    this.#reported = [];
    if (this.#kept.size > 0) this.#watching ??= this.#watch();
    return new Set(this.#kept.keys());
  }

  /** Hosts that were linked when they were reported are so still, or it is told. */
  #keepPairs(): void {
    const linked = new Map(this.#reported.map(({ host }) => [host.host, host.peers]));
    for (const one of this.#hosts.keys()) {
      for (const [other, by] of linked.get(one) ?? []) {
        this.#links = Math.max(this.#links, by);
        if (this.#hosts.has(other) && linked.get(other)?.get(one) === by) this.#pairs.set(pairKey(one, other), { by, done: Promise.resolve() });
      }
    }
  }

  /** The parts of a region that is gone on with, once. Throws where one of its hosts was lost since; then nothing of it goes on. */
  kept(options: PartOptions): readonly RegionPart[] {
    const { hosts, placement, part: name } = this.#kept.get(options.number)!;
    if (hosts.some(({ host }) => !this.#hosts.has(host.host))) {
      for (const { host } of hosts) this.#hosts.get(host.host)?.host.tell({ kind: 'close', part: name });
      const error = new MillraceError('HOST_LOST', `A worker of the job '${options.job}' was lost while another leader took over.`);
      this.#losses.add(error);
      throw error;
    }
    const request = partRequest(options, placement);
    for (const { worker, host } of hosts) for (const [task, number] of placement) if (number === host.host) this.#last.set(task, worker);
    return hosts.map(({ host }) => {
      const { host: held } = this.#hosts.get(host.host)!;
      const part = new RemotePart(held, host.host, request, options, { isRunning: true });
      held.add(part);
      return part;
    });
  }

  /** This leader is none any more: hosts go on, for another one. */
  letGo(cause: Error): void {
    const error = cause instanceof MillraceError ? cause : new MillraceError('LEADER_DEPOSED', messageOf(cause));
    for (const begun of this.#hosts.values()) {
      begun.alive = false;
      begun.host.letGo(error);
    }
    this.#hosts.clear();
    this.#at.clear();
  }

  /** W6. What a task has seen of it comes as an error of its own, from where it ran. */
  lost(error: Error): boolean {
    return this.#losses.has(error) || codeOf(error) === 'LINK_LOST';
  }

  onGone(told: (worker: string) => void): void {
    this.#gone = told;
  }

  workers(): number {
    return this.#rooms().length;
  }

  #lossOf(member: Member, cause?: unknown): MillraceError {
    const error = lostHost(member, cause);
    this.#losses.add(error);
    return error;
  }

  #goneMember(member: Member): MillraceError {
    const error = goneMember(member);
    this.#losses.add(error);
    return error;
  }

  cease(): void {
    this.#closing.abort();
  }

  /** Every host ends; one that does not in END_MS is left to its worker. */
  async close(): Promise<void> {
    this.cease();
    const { clock } = this.#options.io;
    this.#closed.abort();
    clock.clearTimeout(this.#beat);
    const hosts = [...this.#hosts.values()];
    for (const begun of hosts) {
      begun.alive = false;
      begun.host.close();
    }
    this.#hosts.clear();
    this.#at.clear();
    let late: unknown;
    const given = new Promise<void>((resolve) => {
      late = clock.setTimeout(resolve, END_MS);
    });
    await Promise.race([Promise.all(hosts.map(({ ended }) => ended)), given]);
    clock.clearTimeout(late);
    await this.#watching;
  }

  /** W1: by task, its host. */
  async #ready(tasks: readonly PlannedTask[], refuse: () => void): Promise<ReadonlyMap<string, Begun>> {
    for (let tried = 1; ; tried += 1) {
      const placement = await this.#place(tasks, refuse);
      const spots = new Map([...placement.values()].map((spot) => [spotKey(spot), spot]));
      try {
        const begun = new Map(await this.#unlessCeased(Promise.all([...spots].map(async ([key, spot]) => [key, await this.#host(spot)] as const))));
        await this.#unlessCeased(this.#join([...begun.values()]));
        return new Map([...placement].map(([task, spot]) => [task, begun.get(spotKey(spot))!]));
      } catch (error) {
        this.#refuseEnded();
        const code = codeOf(error);
        if (tried === TRIES || (code !== 'HOST_LOST' && code !== 'LINK_LOST')) throw error;
        // Nobody can do without a pair that is apart: the region's restarts bring the next try, and say why.
        const rooms = this.#rooms();
        if (placeOnWorkers(tasks, rooms) !== undefined && placeOnWorkers(tasks, withoutConflicts(rooms, this.#apartNow())) === undefined) throw error;
        this.#options.log.warn({ job: this.#options.job, error: messageOf(error) }, 'Hosts could not be begun as wanted; the tasks are placed anew.');
      }
    }
  }

  /** Members that may have tasks. */
  #listed(): readonly Member[] {
    const { worker, job, planHash } = this.#options;
    return worker.members().filter(({ plans, slots }) => plans[job] === planHash && slots > 0);
  }

  /** Those of them that are connected now. */
  #rooms(): readonly Room[] {
    const { worker } = this.#options;
    return this.#listed()
      .filter(({ id }) => worker.reaches(id))
      .map(({ id, slots, hosts }) => ({ worker: id, slots, hosts }));
  }

  /** Milliseconds that those are to be waited for that are listed and not connected; 0: they have been. */
  #graceLeft(): number {
    const { worker, io } = this.#options;
    const now = io.elapsed();
    const missing = this.#listed().filter(({ id }) => !worker.reaches(id));
    for (const id of [...this.#missedSince.keys()]) if (missing.every((member) => member.id !== id)) this.#missedSince.delete(id);
    for (const { id } of missing) if (!this.#missedSince.has(id)) this.#missedSince.set(id, now);
    return Math.max(0, ...missing.map(({ id }) => this.#missedSince.get(id)! + GRACE_MS - now));
  }

  /** W4. */
  async #place(tasks: readonly PlannedTask[], refuse: () => void): Promise<ReadonlyMap<string, Spot>> {
    const { worker, job, planHash, log } = this.#options;
    let said = false;
    for (;;) {
      const rooms = this.#rooms();
      const grace = this.#graceLeft();
      const placement = placeOnWorkers(tasks, withoutConflicts(rooms, this.#apartNow()), this.#last) ?? placeOnWorkers(tasks, rooms, this.#last);
      if (placement !== undefined && grace === 0) return placement;
      if (placement === undefined && grace === 0) refuse();
      if (placement === undefined && !said && grace === 0) {
        said = true;
        const [wanted, there] = [widthOf(tasks), slotsOf(rooms)];
        log.warn(
          {
            job,
            wanted,
            there,
            listed: this.#listed().length,
            connected: rooms.length,
            otherPrograms: worker.members().filter(({ plans }) => plans[job] !== planHash).length,
          },
          `The job '${job}' needs ${wanted} slots and waits for workers: ${there} are there, of ${rooms.length} workers with its program that are connected.`,
        );
      }
      await this.#change(grace === 0 ? undefined : grace);
    }
  }

  /** Resolves when something has changed, or after so many milliseconds. */
  async #change(ms: number | undefined): Promise<void> {
    const { worker, io } = this.#options;
    const over = new AbortController();
    const timer = ms === undefined ? undefined : io.clock.setTimeout(() => over.abort(), Math.max(1, ms));
    const signal = AbortSignal.any([over.signal, this.#closing.signal]);
    await worker.changed(signal);
    io.clock.clearTimeout(timer);
    over.abort();
    this.#refuseEnded();
  }

  /** Slots that have gone since the plan was made are not waited for, where the job would do with fewer: its next attempt has fewer instances. */
  #refuseTooMany({ job, graph, room }: PartOptions): void {
    const there = room?.() ?? Number.POSITIVE_INFINITY;
    if (there >= graph.defaults.parallelism) return;
    const error = new MillraceError('HOST_LOST', `There is room for ${there} instances of '${job}' only, and not for ${graph.defaults.parallelism} any more.`, {
      retryable: true,
      todo: 'Nothing: it goes on with so many.',
    });
    this.#losses.add(error);
    throw error;
  }

  #refuseEnded(): void {
    if (this.#closing.signal.aborted) throw new MillraceError('JOB_ENDED', `The job '${this.#options.job}' ended while it waited for workers.`);
  }

  async #unlessCeased<T>(work: Promise<T>): Promise<T> {
    const { signal } = this.#closing;
    let cease: (() => void) | undefined;
    const ceased = new Promise<never>((_, reject) => {
      cease = () => reject(new MillraceError('JOB_ENDED', `The job '${this.#options.job}' ended while what runs it was begun.`));
      signal.addEventListener('abort', cease, { once: true });
      if (signal.aborted) cease();
    });
    try {
      return await Promise.race([work, ceased]);
    } finally {
      signal.removeEventListener('abort', cease!);
    }
  }

  #apartNow(): (readonly [string, string])[] {
    const now = this.#options.io.elapsed();
    for (const [key, { at }] of this.#apart) if (now - at > APART_MS) this.#apart.delete(key);
    return [...this.#apart.values()].map(({ pair }) => pair);
  }

  #host(spot: Spot): Promise<Begun> {
    const key = spotKey(spot);
    let begun = this.#at.get(key);
    if (begun === undefined) {
      begun = this.#begin(spot);
      this.#at.set(key, begun);
      const mine = begun;
      begun.catch(() => {
        if (this.#at.get(key) === mine) this.#at.delete(key);
      });
    }
    return begun;
  }

  async #begin(spot: Spot): Promise<Begun> {
    const { worker: id } = spot;
    const { worker, job, epoch } = this.#options;
    const member = worker.members().find((each) => each.id === id);
    if (member === undefined) {
      const error = new MillraceError('HOST_LOST', `The worker ${id} is no member any more.`);
      this.#losses.add(error);
      throw error;
    }
    hostNumbers += 1;
    const number = hostNumbers;
    const begun = this.#hold(spot, number, await worker.beginHost(id, { job, epoch, host: number }), member);
    if (!begun.alive) throw this.#goneMember(member);
    return begun;
  }

  #hold({ worker: id, index }: Spot, number: number, { link, ended, cause }: BegunHost, known?: Member): Begun {
    const { worker, log } = this.#options;
    const key = spotKey({ worker: id, index });
    const listed = worker.members().find((each) => each.id === id);
    const member = known ?? listed ?? { id, address: id, slots: 0, version: '', plans: {} };
    const host = new HostLink(`worker-${id.slice(0, 8)}-${index}`, link, {
      log,
      unlinked: ({ peer, by, error }) => this.#unlinked(number, peer, by, errorOf(error)),
    });
    const begun: Begun = { number, member, index, host, ended, alive: true };
    this.#hosts.set(number, begun);
    void link.closed.then((error) => {
      const why = cause();
      this.#lose(begun, key, why === undefined ? this.#lossOf(member, error) : lostHost(member, why), why === undefined);
    });
    // Meanwhile the job may have ended, or the member have gone.
    if (this.#closing.signal.aborted) link.close();
    if (listed === undefined) this.#lose(begun, key, this.#goneMember(member), true);
    return begun;
  }

  /** W2. */
  #lose(begun: Begun, key: string, error: MillraceError, gone: boolean): void {
    if (!begun.alive) return;
    begun.alive = false;
    // Before its parts can make the job open anything anew.
    if (gone) this.#gone?.(begun.member.id);
    this.#hosts.delete(begun.number);
    this.#at.delete(key);
    for (const pair of [...this.#pairs.keys()]) if (pair.split('-').includes(String(begun.number))) this.#pairs.delete(pair);
    begun.host.lost(error);
  }

  // ── pairs ──

  async #join(hosts: readonly Begun[]): Promise<void> {
    const joining: Promise<void>[] = [];
    for (const [i, one] of hosts.entries()) for (const other of hosts.slice(i + 1)) joining.push(this.#pair(one, other));
    const failed = (await Promise.allSettled(joining)).find((each) => each.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
  }

  #pair(one: Begun, other: Begun): Promise<void> {
    const key = pairKey(one.number, other.number);
    const there = this.#pairs.get(key);
    if (there !== undefined) return there.done;
    this.#links += 1;
    const pair: Pair = { by: this.#links, done: this.#joined(one, other, this.#links) };
    this.#pairs.set(key, pair);
    pair.done.catch(() => {
      if (this.#pairs.get(key) === pair) this.#pairs.delete(key);
    });
    return pair.done;
  }

  async #joined(one: Begun, other: Begun, by: number): Promise<void> {
    const { worker, job, epoch, io } = this.#options;
    const [a, b] = [one.member, other.member];
    try {
      await worker.joinHosts({ job, epoch }, by, { worker: a.id, host: one.number }, { worker: b.id, host: other.number });
    } catch (cause) {
      if (!one.alive) throw this.#lossOf(a, cause);
      if (!other.alive) throw this.#lossOf(b, cause);
      // One that was busy (worker.ts, K5) is joined by the next try; a thread that hangs is told of otherwise.
      if (codeOf(cause) === 'HOST_LOST') this.#losses.add(asError(cause));
      if (codeOf(cause) !== 'LINK_LOST' || a.id === b.id) throw cause;
      const pair = [a.id, b.id] as const;
      this.#apart.set(pair.join(), { pair, at: io.elapsed() });
      throw new MillraceError('LINK_LOST', `The workers ${a.address} and ${b.address} cannot reach each other: ${messageOf(cause)}`, {
        cause: asError(cause),
        retryable: true,
        todo: 'Let every worker of a cluster reach every other one at the address that it advertises.',
      });
    }
  }

  /** W3. */
  #unlinked(host: number, peer: number, by: number, error: Error): void {
    const key = pairKey(host, peer);
    if (this.#pairs.get(key)?.by !== by) return;
    this.#pairs.delete(key);
    const [one, other] = [this.#hosts.get(host), this.#hosts.get(peer)];
    if (one === undefined || other === undefined) return;
    const lost = new MillraceError('LINK_LOST', `The link between the workers ${one.member.address} and ${other.member.address} is gone.`, {
      cause: error,
      retryable: true,
      todo: 'Nothing: what went over it restarts from the newest checkpoint.',
    });
    one.host.unlinked(peer, lost);
  }

  // ── watching ──

  async #watch(): Promise<void> {
    const { worker } = this.#options;
    const { signal } = this.#closed;
    this.#beats();
    const told = new Set<string>();
    while (!signal.aborted) {
      this.#graceLeft();
      this.#tellSettled(told);
      const listed = new Set(worker.members().map(({ id }) => id));
      for (const begun of [...this.#hosts.values()]) {
        if (!listed.has(begun.member.id)) this.#lose(begun, spotKey({ worker: begun.member.id, index: begun.index }), this.#goneMember(begun.member), true);
      }
      await worker.changed(signal);
    }
  }

  /** W7: who comes, or comes back, hears that what it may still run of older leaders is gone on with by nobody. */
  #tellSettled(told: Set<string>): void {
    const { worker, job, epoch, log } = this.#options;
    const there = this.#rooms().map((room) => room.worker);
    for (const id of told) if (!there.includes(id)) told.delete(id);
    for (const id of there) {
      if (told.has(id)) continue;
      told.add(id);
      worker.settle(id, { job, epoch }, []).catch((error) => {
        if (!isDeposed(error)) log.warn({ worker: id, error: messageOf(error) }, 'A worker could not be told that nobody goes on with what it ran before.');
      });
    }
  }

  /** W5. */
  #beats(): void {
    const { worker, io, log, job, epoch, stallMs = STALL_MS } = this.#options;
    const beatMs = Math.min(BEAT_MS, stallMs / 4);
    this.#beat = io.clock.setTimeout(() => {
      for (const begun of [...this.#hosts.values()]) {
        if (begun.host.beat() <= stallMs / beatMs) continue;
        log.error({ worker: begun.member.address, stallMs }, 'A host gives no answer any more, and is ended.');
        worker.endHost(begun.member.id, { job, epoch, host: begun.number });
        this.#lose(begun, spotKey({ worker: begun.member.id, index: begun.index }), stalled(begun.member, stallMs), false);
      }
      this.#beats();
    }, beatMs);
  }
}

function spotKey({ worker, index }: Spot): string {
  return `${worker}/${index}`;
}

function pairKey(one: number, other: number): string {
  return one < other ? `${one}-${other}` : `${other}-${one}`;
}

function lostHost({ address }: Member, cause?: unknown): MillraceError {
  return new MillraceError('HOST_LOST', `The worker ${address} is lost${cause === undefined ? '' : `: ${messageOf(cause)}`}`.replace(/\.?$/, '.'), {
    cause,
    uid: cause instanceof MillraceError ? cause.uid : undefined,
    retryable: true,
    todo: 'Nothing, if it comes back or others have slots: what ran there restarts from the newest checkpoint.',
  });
}

function goneMember({ address }: Member): MillraceError {
  return new MillraceError('HOST_LOST', `The worker ${address} is no member of the cluster any more.`, {
    todo: 'Nothing, if it comes back or others have slots: what ran there restarts from the newest checkpoint.',
  });
}

function stalled({ address }: Member, ms: number): MillraceError {
  return new MillraceError('HOST_LOST', `The worker ${address} gave no answer for ${ms / 1000} s.`, {
    todo: 'Look for a function of the job that does not come to an end; what ran there restarts from the newest checkpoint.',
  });
}
