// A supervisor's rules: the guardian that starts, restarts and stops children by their specs, as OTP's supervisor does.
//
// Who owns what: the rules own specs, restart stamps and waits; each child's cell owns its mail and its end; what to do is
// decided by the pure functions of restart-policy.ts. An incarnation of a supervisor has rules of its own.
// Invariants:
//  S1  `children` stand in start order, which a restart does not change.
//  S2  Starting is synchronous, stopping is not: while children are being stopped (`stopping`), requests and ends of other children wait.
//  S3  A try counts when it is scheduled, once for a whole group; the wait comes before any sibling is stopped.
//  S4  A failed restart comes back as the child's end, as mail, so that other requests are served in between.
//  S5  Children move through `childLifecycle` only.

import type { ActorRef } from './actor-ref.ts';
import { type CheckedFlags, type CheckedSpec, type ChildSpec, checkSpec, countsAs } from './child-spec.ts';
import { ActorError } from './errors.ts';
import type { Guardian, GuardianHost, GuardianRequest, Ward } from './guardian.ts';
import { type ChildEvent, type ChildState, moveChild } from './lifecycle.ts';
import { backoffDelay, callsForRestart, countRestart, endsSupervisor, restartGroup, restartsInRow } from './restart-policy.ts';
import type { TreeNode } from './tree.ts';

/** A child as `whichChildren` shows it. */
export interface Child {
  readonly id: string;
  /** Undefined unless running. */
  readonly ref: ActorRef<never> | undefined;
  readonly state: 'running' | 'restarting' | 'stopped';
  /** Of its spec. */
  readonly restart: 'permanent' | 'transient' | 'temporary';
}

/** What `countChildren` gives. */
export interface ChildCount {
  specs: number;
  /** Those whose actor lives. */
  active: number;
  supervisors: number;
  workers: number;
}

class SupervisedChild {
  readonly spec: CheckedSpec;
  ward: Ward | undefined;
  state: ChildState = 'starting';
  inRow = 0;
  startedAt: number | undefined;
  /** The wait before a try; identity tells a wait that was given up from the one that counts. */
  wait: { timer: unknown } | undefined;
  /** Its restart failed to start: the end that comes back as mail is the next try. */
  retry = false;

  constructor(spec: CheckedSpec) {
    this.spec = spec;
  }

  move(event: ChildEvent): void {
    this.state = moveChild(this.state, event);
  }

  /** Whether an actor is there that would have to be stopped. */
  get lives(): boolean {
    return this.ward !== undefined && (this.ward.state === 'running' || this.ward.state === 'stopping');
  }
}

/** Children being stopped, one at a time. */
interface Stopping {
  readonly left: SupervisedChild[];
  current: SupervisedChild | undefined;
  readonly forGood: (child: SupervisedChild) => boolean;
  readonly then: () => void;
  readonly abandon: () => void;
}

export class SupervisorRules implements Guardian {
  readonly #host: GuardianHost;
  readonly #flags: CheckedFlags;
  readonly #children: SupervisedChild[] = [];
  #stamps: number[] = [];
  #stopping: Stopping | undefined;
  #ends: Ward[] = [];
  #tries: SupervisedChild[] = [];
  #requests: GuardianRequest[] = [];
  /** The supervisor is about to end: nothing is decided any more. */
  #over = false;

  constructor(host: GuardianHost, flags: CheckedFlags) {
    this.#host = host;
    this.#flags = flags;
  }

  open(): void {
    for (const spec of this.#flags.specs) {
      const child = new SupervisedChild(spec);
      this.#children.push(child);
      if (!this.#start(child)) throw startFailed(spec.id, child.ward?.reason);
    }
  }

  childEnded(ward: Ward): void {
    const stopping = this.#stopping;
    if (stopping === undefined) {
      this.#ended(ward);
      return;
    }
    if (stopping.current?.ward === ward) {
      if (ward.state !== 'restarting' && ward.state !== 'stopped') return;
      this.#stopped(stopping.current);
      stopping.current = undefined;
      this.#stopNext(stopping);
    } else this.#ends.push(ward);
  }

  request(request: GuardianRequest): void {
    if (this.#stopping !== undefined) this.#requests.push(request);
    else request.run(this);
  }

  close(): GuardianRequest[] {
    for (const child of this.#children) this.#giveUpWait(child);
    this.#stopping?.abandon();
    this.#stopping = undefined;
    return this.#requests.splice(0);
  }

  nodes(living: readonly Ward[]): TreeNode[] {
    const kept = this.#children.map((child) => this.#nodeOf(child));
    const known = new Set(this.#children.map((child) => child.ward));
    return [...kept, ...living.filter((ward) => !known.has(ward)).map((ward) => ward.node())];
  }

  // Requests.

  which(): Child[] {
    return this.#children.map((child) => ({
      id: child.spec.id,
      ref: child.state === 'running' ? child.ward?.ref : undefined,
      state: child.state === 'running' || child.state === 'restarting' ? child.state : 'stopped',
      restart: child.spec.restart,
    }));
  }

  count(): ChildCount {
    const count = { specs: this.#children.length, active: 0, supervisors: 0, workers: 0 };
    for (const child of this.#children) {
      if (child.state === 'running') count.active++;
      count[countsAs(child.spec.definition.kind)]++;
    }
    return count;
  }

  refOf(id: string): ActorRef<never> {
    const child = this.#find(id);
    if (child.ward === undefined || child.ward.state === 'stopped') {
      throw new ActorError('ERR_ACTOR_STOPPED', `Child "${id}" of ${this.#host.path} is stopped; restartChild starts it again and gives its new ref.`);
    }
    return child.ward.ref;
  }

  startChild(spec: ChildSpec<never>): ActorRef<never> {
    const checked = checkSpec(spec, this.#flags.autoShutdown);
    const present = this.#children.find((child) => child.spec.id === checked.id);
    if (present?.state === 'running') {
      throw new ActorError('ERR_CHILD_ALREADY_STARTED', `Child "${checked.id}" of ${this.#host.path} runs already; take it with childOf, or give another id.`);
    }
    if (present !== undefined) {
      throw new ActorError('ERR_CHILD_ALREADY_PRESENT', `${this.#host.path} has a spec "${checked.id}" already; use restartChild, or deleteChild before.`);
    }
    const child = new SupervisedChild(checked);
    this.#children.push(child);
    if (!this.#start(child)) {
      child.move('refused');
      this.#delete(child);
      throw startFailed(checked.id, child.ward?.reason);
    }
    return (child.ward as Ward).ref;
  }

  terminateChild(id: string, resolve: () => void, refuse: () => void): void {
    const child = this.#find(id);
    this.#giveUpWait(child);
    this.#stop([child], () => true, resolve, refuse);
  }

  restartChild(id: string): ActorRef<never> {
    const child = this.#find(id);
    this.#refuseUnlessStopped(child);
    child.move('start');
    if (!this.#start(child)) {
      child.move('refused');
      throw startFailed(id, child.ward?.reason);
    }
    return (child.ward as Ward).ref;
  }

  deleteChild(id: string): void {
    const child = this.#find(id);
    this.#refuseUnlessStopped(child);
    this.#delete(child);
  }

  // Ends and restarts.

  /** A child ended by itself, or a start of it failed. Says nothing new when a group restart has started it since. */
  #ended(ward: Ward): void {
    const child = this.#children.find((one) => one.ward === ward);
    if (child === undefined || (ward.state !== 'restarting' && ward.state !== 'stopped') || ward.reason === undefined) return;
    if (child.state === 'running') {
      // Retired already although its spec would restart it: the system stops, nothing is started any more.
      const mayRestart = ward.state === 'restarting' && callsForRestart(child.spec.restart, ward.reason);
      if (!mayRestart) {
        this.#finished(child, ward);
        return;
      }
      child.move('failed');
    } else if (!child.retry) return;
    this.#schedule(child);
  }

  #finished(child: SupervisedChild, ward: Ward): void {
    child.move('finished');
    if (ward.state === 'restarting') ward.retire();
    if (child.spec.restart === 'temporary') this.#delete(child);
    if (!child.spec.significant) return;
    const others = this.#children.some((one) => one !== child && one.spec.significant && one.state !== 'stopped');
    if (endsSupervisor(this.#flags.autoShutdown, others)) this.#exit();
  }

  #schedule(child: SupervisedChild): void {
    child.retry = false;
    const { intensity, backoff } = this.#flags;
    const now = this.#host.clock.now();
    const counted = countRestart(this.#stamps, now, intensity);
    this.#stamps = counted.stamps;
    if (counted.exceeded) {
      this.#exit();
      return;
    }
    if (backoff === undefined) {
      this.#restart(child);
      return;
    }
    child.inRow = restartsInRow(child.inRow, child.startedAt === undefined ? undefined : now - child.startedAt, backoff);
    child.startedAt = undefined;
    const wait = { timer: undefined as unknown };
    child.wait = wait;
    wait.timer = this.#host.clock.setTimeout(() => this.#host.post(() => this.#waited(child, wait)), backoffDelay(backoff, child.inRow, this.#host.random));
  }

  #waited(child: SupervisedChild, wait: SupervisedChild['wait']): void {
    if (child.wait !== wait) return;
    child.wait = undefined;
    if (this.#stopping !== undefined) this.#tries.push(child);
    else this.#restart(child);
  }

  #restart(failed: SupervisedChild): void {
    const group = restartGroup(this.#flags.strategy, this.#children.indexOf(failed), this.#children.length).map(
      (place) => this.#children[place] as SupervisedChild,
    );
    for (const child of group) this.#giveUpWait(child);
    const siblings = group.filter((child) => child !== failed && (child.lives || child.state === 'running')).reverse();
    const temporary = (child: SupervisedChild) => child.spec.restart === 'temporary';
    this.#stop(
      siblings,
      temporary,
      () => this.#startGroup(group),
      () => {},
    );
  }

  /** In start order, up to the first that fails: its end comes back as mail and is the next try. */
  #startGroup(group: readonly SupervisedChild[]): void {
    for (const child of group) {
      if (child.spec.restart === 'temporary' || !this.#children.includes(child)) continue;
      child.move('start');
      if (this.#start(child)) continue;
      child.move('failed');
      child.retry = true;
      return;
    }
  }

  /** Starts a child that is `starting`: again where its actor is held, else anew. */
  #start(child: SupervisedChild): boolean {
    const { definition, id, restart, shutdown } = child.spec;
    let started: boolean;
    if (child.ward?.state === 'restarting') started = child.ward.start();
    else {
      const before = this.#children.slice(0, this.#children.indexOf(child));
      const place = before.filter((one) => one.ward !== undefined && one.ward.state !== 'stopped').length;
      child.ward = this.#host.adopt(definition, { name: id, restart, ...(shutdown === undefined ? {} : { shutdown }) }, place);
      started = child.ward.state === 'running';
    }
    child.startedAt = started ? this.#host.clock.now() : undefined;
    if (started) child.move('started');
    return started;
  }

  // Stopping, one at a time (S2).

  #stop(children: readonly SupervisedChild[], forGood: (child: SupervisedChild) => boolean, then: () => void, abandon: () => void): void {
    this.#stopping = { left: [...children], current: undefined, forGood, then, abandon };
    this.#stopNext(this.#stopping);
  }

  #stopNext(stopping: Stopping): void {
    for (let child = stopping.left.shift(); child !== undefined; child = stopping.left.shift()) {
      if (child.state === 'stopped' || child.state === 'deleted') continue;
      child.move('stop');
      if (child.ward?.requestStop(stopping.forGood(child)) === false) {
        stopping.current = child;
        return;
      }
      this.#stopped(child);
    }
    this.#stopping = undefined;
    stopping.then();
    this.#resume();
  }

  #stopped(child: SupervisedChild): void {
    child.move(child.ward?.state === 'restarting' ? 'held' : 'stopped');
    if (child.state === 'stopped' && child.spec.restart === 'temporary') this.#delete(child);
  }

  /** What waited while children were being stopped, as long as nothing of it stops children again. */
  #resume(): void {
    while (this.#stopping === undefined && !this.#over) {
      const ward = this.#ends.shift();
      if (ward !== undefined) {
        this.#ended(ward);
        continue;
      }
      const child = this.#tries.shift();
      if (child !== undefined) {
        if (child.state === 'restarting' && child.wait === undefined && !child.retry) this.#restart(child);
        continue;
      }
      const request = this.#requests.shift();
      if (request === undefined) return;
      request.run(this);
    }
  }

  #exit(): void {
    this.#over = true;
    this.#host.exit('shutdown');
  }

  // Small parts.

  #find(id: string): SupervisedChild {
    const child = this.#children.find((one) => one.spec.id === id);
    if (child === undefined) throw new ActorError('ERR_CHILD_NOT_FOUND', `${this.#host.path} has no child spec "${id}"; whichChildren lists them.`);
    return child;
  }

  #refuseUnlessStopped(child: SupervisedChild): void {
    const { id } = child.spec;
    if (child.state === 'restarting') {
      throw new ActorError('ERR_CHILD_RESTARTING', `Child "${id}" of ${this.#host.path} is being restarted; wait for that, or terminateChild before.`);
    }
    if (child.state !== 'stopped') throw new ActorError('ERR_CHILD_RUNNING', `Child "${id}" of ${this.#host.path} runs; terminateChild before.`);
  }

  #delete(child: SupervisedChild): void {
    child.move('delete');
    this.#children.splice(this.#children.indexOf(child), 1);
  }

  #giveUpWait(child: SupervisedChild): void {
    if (child.wait !== undefined) this.#host.clock.clearTimeout(child.wait.timer);
    child.wait = undefined;
  }

  #nodeOf(child: SupervisedChild): TreeNode {
    const { id, definition } = child.spec;
    const node = child.ward?.node() ?? {
      name: id,
      path: `${this.#host.path}/${id}`,
      kind: definition.kind,
      state: 'stopped',
      restarts: 0,
      mailbox: 0,
      children: [],
    };
    return node.state === 'stopped' && child.state === 'restarting' ? { ...node, state: 'restarting' } : node;
  }
}

function startFailed(id: string, cause: unknown): ActorError {
  return new ActorError('ERR_CHILD_START_FAILED', `Child "${id}" did not start; its error is the cause of this one.`, { cause });
}
