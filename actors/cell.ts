// The cell: one actor, over all its incarnations.
//
// What: a mailbox, a definition, at most one incarnation (its handlers and its context), children, and the place in the tree.
// It runs one thing at a time: control mail, a batch of messages, a slice of work, each inside `run`, which the loop calls.
// Who owns what: the loop decides when; the cell decides what; the context owns timers and watches of the incarnation; the
// guardian decides what becomes of a child that went down; the parent's cell decides when this one is stopped.
// Invariants:
//  C1  User code of an incarnation runs only in `start`, in `run` and in the settling of promises it returned itself. After the end of
//      the incarnation has begun only its `stopping` runs; after a kill nothing does.
//  C2  `held` is true whenever no message may be served: not running, suspended, a promise pending, an exit asked for.
//      `interrupt` is true whenever a batch must be left after the message at hand.
//  C3  Everything asynchronous comes back as control mail and carries the incarnation it belongs to; mail of an earlier one is dropped.
//  C4  `forGood` says that this end is the last. It is set before the actor goes down, or the parent decides while it is `restarting`.
//  C5  The message lane outlives incarnations; its timers and notices do not.
//  C6  The first reason of an end is the reason. A throw after it is logged.

import type { ActorRef } from './actor-ref.ts';
import type { Behaviour, SpawnOptions } from './behaviour.ts';
import type { Clock } from './clock.ts';
import { Context, type ContextHost, TerminatedEntry, TimerEntry } from './context.ts';
import type { Definition, Handlers } from './definition.ts';
import { definitionOf } from './definition.ts';
import { ActorError, asError } from './errors.ts';
import type { ExitReason } from './exit-reason.ts';
import type { Guardian, GuardianHost, GuardianRequest, Ward } from './guardian.ts';
import type { Loop, Runnable } from './host-loop.ts';
import { type CellEvent, type CellState, moveCell } from './lifecycle.ts';
import type { FailurePhase, Log } from './log.ts';
import { CONTROL_BATCH, LaneEntry, Mailbox } from './mailbox.ts';
import { PlainParent } from './plain-parent.ts';
import { type Addressee, LocalRef, type Watcher } from './ref.ts';
import type { RestartType } from './restart-policy.ts';
import type { Services } from './services.ts';
import { checkSpawnOptions, DEFAULT_SHUTDOWN_MS, restartOf, type Shutdown, shutdownOf } from './spawn-options.ts';
import type { TraceEvent } from './trace.ts';
import { type TreeNode, withInspection } from './tree.ts';

type Control =
  | { readonly kind: 'stop' }
  | { readonly kind: 'child'; readonly child: Cell }
  | { readonly kind: 'request'; readonly request: GuardianRequest }
  | { readonly kind: 'received'; readonly pending: Pending }
  | { readonly kind: 'stopping-over'; readonly incarnation: number }
  | { readonly kind: 'run'; readonly incarnation: number; readonly run: () => void };

/** A promise that a handler returned. */
interface Pending {
  /** Set when it settled: the rejection, if it was one. */
  rejected?: { readonly error: unknown };
  /** Its own actor's exit abandoned it: a rejection is still worth a line (C6). */
  exited?: boolean;
}

export class Cell implements Runnable, Addressee, ContextHost, Ward, GuardianHost {
  readonly name: string;
  readonly path: string;
  readonly ref: LocalRef;
  readonly parent: Cell | undefined;
  readonly definition: Definition;
  readonly restart: RestartType;
  readonly children: Cell[] = [];
  readonly mailbox = new Mailbox<Control>();
  state: CellState = 'starting';
  reason: ExitReason | undefined;
  restarts = 0;
  queued = false;
  accepting = true;
  /** Called once when this actor has ended for good; the system's own root uses it. */
  onRetired: (() => void) | undefined;

  readonly #services: Services;
  readonly #shutdown: Shutdown;
  readonly #childNames = new Map<string, Cell>();
  readonly #watchers = new Set<Watcher>();
  #held = true;
  #interrupt = false;
  #incarnation = 0;
  #forGood = false;
  #stopAsked = false;
  #context: Context | undefined;
  #guardian: Guardian | undefined;
  #handlers: Handlers | undefined;
  #receive: Handlers['receive'] | undefined;
  #work: Handlers['work'];
  #workReady = false;
  #suspended = false;
  #pending: Pending | undefined;
  #exiting: { readonly reason: ExitReason } | undefined;
  /** What an end waits for: children, then the stopping hook. */
  #endPhase: 'none' | 'children' | 'hook' | 'over' = 'none';
  #skipsStopping = false;
  #shutdownTimer: unknown;
  #requests: GuardianRequest[] = [];
  #trace: ((event: TraceEvent) => void) | undefined;
  #namesMade = 0;
  #log: Log | undefined;

  constructor(services: Services, parent: Cell | undefined, name: string, definition: Definition, options: SpawnOptions) {
    this.#services = services;
    this.parent = parent;
    this.name = name;
    this.path = parent === undefined ? '/' : `${parent.parent === undefined ? '' : parent.path}/${name}`;
    this.definition = definition;
    this.restart = restartOf(options.restart);
    this.#shutdown = shutdownOf(options.shutdown, definition.kind);
    this.ref = new LocalRef(this.path, this);
  }

  // What the incarnation and the guardian are given.

  get asks() {
    return this.#services.asks;
  }

  get clock(): Clock {
    return this.#services.clock;
  }

  get random(): () => number {
    return this.#services.random;
  }

  get log(): Log {
    this.#log ??= this.#services.reporter.logOf(this.path);
    return this.#log;
  }

  get ended(): ExitReason | undefined {
    return this.state === 'stopped' ? this.reason : undefined;
  }

  get parentRef(): LocalRef | undefined {
    return this.parent?.parent === undefined ? undefined : this.parent.ref;
  }

  get childRefs(): readonly LocalRef[] {
    return this.children.map((child) => child.ref);
  }

  // The message lane.

  tell(message: unknown): void {
    if (!this.accepting) {
      this.#services.deadLetters.add({ message, to: this.ref, reason: 'stopped' });
      return;
    }
    this.mailbox.messages.push(message);
    if (!this.queued && !this.#held) this.#enqueue();
  }

  deliver(entry: LaneEntry): void {
    this.mailbox.pushEntry(entry);
    if (!this.queued && !this.#held) this.#enqueue();
  }

  undeliver(entry: LaneEntry): void {
    this.mailbox.removeEntry(entry);
  }

  markReady(): void {
    if (this.#workReady) return;
    this.#workReady = true;
    if (!this.queued && !this.#held) this.#enqueue();
  }

  // One turn.

  run(loop: Loop): boolean {
    const { control, messages } = this.mailbox;
    if (control.size !== 0) this.#drainControl();
    // Control mail beyond a batch waits for one message only.
    this.#interrupt = control.size !== 0;
    if (this.#exiting !== undefined) this.#endByItself();
    if (!this.#held) this.#serve(loop);
    if (this.#exiting !== undefined) this.#endByItself();
    return control.size !== 0 || (!this.#held && (messages.size !== 0 || this.#workReady));
  }

  /** A batch of messages, then a slice of work. Leaves as soon as something else goes first. */
  #serve(loop: Loop): void {
    const { control, messages } = this.mailbox;
    const handlers = this.#handlers;
    const receive = this.#receive as Handlers['receive'];
    let left = Math.min(messages.size, loop.batch);
    const nothingWaited = left === 0;
    try {
      while (left-- > 0 && messages.size !== 0) {
        const message = messages.shift();
        let result: unknown;
        if (this.mailbox.entries !== 0 && message instanceof LaneEntry) result = this.#serveEntry(message);
        else {
          if (this.#trace !== undefined) this.#traced({ type: 'message', path: this.path, message });
          result = receive.call(handlers, message);
        }
        if (result !== undefined && isPromise(result)) this.#waitFor(result);
        if (this.#interrupt || loop.tick()) break;
      }
      if (this.#workReady && !this.#held && (nothingWaited || control.size === 0)) {
        this.#workReady = false;
        if (this.#work?.call(handlers, loop.slice()) === true) this.#workReady = true;
      }
    } catch (error) {
      this.#failed(error);
    }
  }

  #serveEntry(entry: LaneEntry): unknown {
    this.mailbox.entries--;
    if (entry instanceof TimerEntry) {
      this.#context?.handled(entry);
      if (this.#trace !== undefined) this.#traced({ type: 'message', path: this.path, message: entry.message });
      return this.#receive?.call(this.#handlers as Handlers, entry.message);
    }
    if (entry instanceof TerminatedEntry) {
      this.#context?.handled(entry);
      if (this.#trace !== undefined) this.#traced({ type: 'terminated', path: this.path, ref: entry.ref, reason: entry.reason });
      return this.#handlers?.onSignal?.terminated?.(entry.ref, entry.reason);
    }
    return undefined;
  }

  /** The next message waits for the promise; it comes back as control mail. */
  #waitFor(promise: PromiseLike<unknown>): void {
    const pending: Pending = {};
    this.#pending = pending;
    this.#hold();
    promise.then(
      () => this.#received(pending),
      (error: unknown) => {
        pending.rejected = { error };
        this.#received(pending);
      },
    );
  }

  #received(pending: Pending): void {
    if (this.#pending === pending) this.#post({ kind: 'received', pending });
    else if (pending.rejected !== undefined && pending.exited) {
      this.#services.reporter.logged(`${this.path} threw after its exit`, pending.rejected.error);
    }
  }

  #failed(error: unknown): void {
    if (this.#exiting !== undefined || this.state !== 'running') {
      this.#services.reporter.logged(`${this.path} threw after its exit`, error);
      return;
    }
    this.#exiting = { reason: asError(error) };
    this.#hold();
  }

  exitWith(reason: ExitReason): void {
    if (this.#exiting !== undefined || (this.state !== 'running' && this.state !== 'starting')) return;
    this.#exiting = { reason };
    this.#hold();
    if (!this.queued) this.#enqueue();
  }

  // Control mail.

  #post(control: Control): void {
    if (this.state === 'stopped') return;
    this.mailbox.control.push(control);
    this.#interrupt = true;
    if (!this.queued) this.#enqueue();
  }

  #drainControl(): void {
    const control = this.mailbox.control;
    for (let left = Math.min(control.size, CONTROL_BATCH); left > 0 && control.size !== 0; left--) this.#handle(control.shift() as Control);
  }

  #handle(mail: Control): void {
    switch (mail.kind) {
      case 'stop':
        if (this.state === 'running') this.#end(this.#exiting?.reason ?? 'shutdown', 'ended');
        return;
      case 'child':
        if (this.#endPhase === 'children') this.#stopNextChild();
        else if (this.#serves()) this.#guardian?.childEnded(mail.child);
        return;
      case 'request':
        if (this.#serves()) this.#guardian?.request(mail.request);
        else if (this.state === 'stopped') mail.request.refuse();
        else this.#requests.push(mail.request);
        return;
      case 'received':
        if (this.#pending !== mail.pending) return;
        this.#pending = undefined;
        this.#updateHeld();
        if (mail.pending.rejected !== undefined) this.#failed(mail.pending.rejected.error);
        return;
      case 'stopping-over':
        if (mail.incarnation === this.#incarnation && this.#endPhase === 'hook') this.#down();
        return;
      case 'run':
        if (mail.incarnation === this.#incarnation && this.#serves()) mail.run();
        return;
    }
  }

  /** Whether the guardian is asked: an actor that runs and is not about to end. */
  #serves(): boolean {
    return this.state === 'running' && this.#exiting === undefined;
  }

  // The start.

  start(): boolean {
    if (this.state === 'restarting') {
      this.#move('start');
      this.restarts++;
    }
    const incarnation = ++this.#incarnation;
    this.#stopAsked = false;
    this.#suspended = false;
    this.#workReady = false;
    this.#skipsStopping = false;
    this.#exiting = undefined;
    this.#endPhase = 'none';
    this.reason = undefined;
    const context = new Context(this);
    this.#context = context;
    try {
      const guardian = this.definition.guard?.(this) ?? new PlainParent(this.clock);
      this.#guardian = guardian;
      const handlers = checkHandlers(this.definition.start(context), this.path);
      // The definition may have brought about its own kill, by stopping the system above a brutal parent.
      if (incarnation !== this.#incarnation) return false;
      this.#handlers = handlers;
      this.#receive = handlers.receive;
      this.#work = handlers.work;
      guardian.open();
      if (incarnation !== this.#incarnation) return false;
    } catch (thrown) {
      this.#report(thrown, 'start');
      if (incarnation !== this.#incarnation) return false;
      this.#skipsStopping = true;
      this.#end(asError(thrown), 'failed');
      return false;
    }
    this.#move('started');
    this.#updateHeld();
    if (
      !this.queued &&
      (this.mailbox.control.size !== 0 || this.#exiting !== undefined || (!this.#held && (this.mailbox.messages.size !== 0 || this.#workReady)))
    ) {
      this.#enqueue();
    }
    for (const request of this.#requests.splice(0)) this.#post({ kind: 'request', request });
    return true;
  }

  spawn(behaviour: Behaviour<never>, options: SpawnOptions = {}, spawner?: Context): LocalRef {
    if (this.#services.stopping) {
      throw new ActorError('ERR_SYSTEM_STOPPED', 'The actor system was stopped and starts nothing any more; create another with createSystem().');
    }
    const definition = definitionOf(behaviour);
    checkSpawnOptions(options);
    if (options.name !== undefined && this.#childNames.has(options.name)) {
      throw new ActorError(
        'ERR_NAME_TAKEN',
        `${this.path} has a living child "${options.name}"; names are unique among siblings. Wait for its end, or leave the name to the runtime.`,
      );
    }
    const living = spawner === undefined || (!spawner.closed && (this.state === 'running' || this.state === 'starting'));
    return living ? this.adopt(definition, options, this.children.length).ref : this.#stillborn(definition, options);
  }

  adopt(behaviour: Behaviour<never>, options: SpawnOptions, index: number): Cell {
    const child = new Cell(this.#services, this, options.name ?? this.#makeName(), definitionOf(behaviour), options);
    this.children.splice(index, 0, child);
    this.#childNames.set(child.name, child);
    // A first start that fails is an end for good; a later one is the parent's to decide.
    child.#forGood = true;
    if (child.start()) child.#forGood = false;
    return child;
  }

  /** The child of an incarnation that has ended: it cannot start, and spawn does not throw for that. */
  #stillborn(definition: Definition, options: SpawnOptions): LocalRef {
    const child = new Cell(this.#services, this, options.name ?? this.#makeName(), definition, options);
    const error = new ActorError('ERR_ACTOR_STOPPED', `${this.path} has ended and cannot start ${child.path}; start it while its parent runs.`);
    child.#forGood = true;
    child.#skipsStopping = true;
    child.#report(error, 'start');
    child.#end(error, 'failed');
    return child.ref;
  }

  #makeName(): string {
    for (;;) {
      const name = `$${++this.#namesMade}`;
      if (!this.#childNames.has(name)) return name;
    }
  }

  // The end: children first, then stopping, then down.

  stopChild(ref: ActorRef<never>): void {
    const child = LocalRef.addresseeOf(ref);
    if (!(child instanceof Cell) || child.parent !== this) {
      throw new ActorError('ERR_NOT_A_CHILD', `${this.path} can stop its own children only, and ${ref.path} is none of them.`);
    }
    child.requestStop(true);
  }

  requestStop(forGood: boolean): boolean {
    if (this.state === 'stopped') return true;
    if (forGood) this.#forGood = true;
    if (this.state === 'restarting') {
      if (forGood) this.retire();
      return true;
    }
    if (this.#shutdown === 'brutal') {
      this.#kill(`${this.path} was stopped without being asked, as its shutdown 'brutal' says.`, false);
      return true;
    }
    if (forGood && this.state === 'stopping') this.#closeMailbox();
    if (this.#stopAsked) return false;
    this.#stopAsked = true;
    // The root runs no code of users: its stop begins at once, so that it overtakes what waits in the last actor.
    if (this.parent === undefined) this.#end('shutdown', 'ended');
    else this.#post({ kind: 'stop' });
    return false;
  }

  #endByItself(): void {
    const exiting = this.#exiting;
    if (exiting === undefined || this.state !== 'running') return;
    this.#end(exiting.reason, 'ended');
  }

  #end(reason: ExitReason, event: CellEvent): void {
    // A failed start was reported where it was caught, and so is known apart from what happens to a running actor.
    if (event === 'ended' && reason instanceof Error) this.#report(reason, 'receive');
    if (this.#pending !== undefined) this.#pending.exited = this.#exiting !== undefined;
    this.reason = reason;
    this.#exiting = undefined;
    this.#abandon();
    this.#move(event);
    if (this.#endsForGood()) this.#forGood = true;
    if (this.#forGood) this.#closeMailbox();
    this.#armShutdown();
    this.#endPhase = 'children';
    this.#stopNextChild();
  }

  /** Everything that belongs to the incarnation alone ends here, its handlers excepted. */
  #abandon(): void {
    this.#held = true;
    this.#interrupt = true;
    this.#pending = undefined;
    this.#workReady = false;
    if (this.#guardian !== undefined) this.#requests.push(...this.#guardian.close());
    this.#context?.close();
    this.mailbox.dropEntries();
  }

  /** Whether nobody will start this actor again, as far as can be said before its parent is asked. */
  #endsForGood(): boolean {
    const parent = this.parent;
    if (this.restart === 'temporary' || this.#services.stopping) return true;
    return parent === undefined || parent.state === 'stopping' || parent.state === 'stopped';
  }

  #armShutdown(): void {
    const time = this.#shutdown === 'brutal' ? DEFAULT_SHUTDOWN_MS : this.#shutdown;
    if (time === 'infinity' || time === Number.POSITIVE_INFINITY || this.parent === undefined) return;
    const incarnation = this.#incarnation;
    this.#shutdownTimer = this.clock.setTimeout(() => {
      if (incarnation !== this.#incarnation || this.state !== 'stopping') return;
      this.#kill(`${this.path} did not end within its shutdown time of ${time} ms; give it more with \`shutdown\`, or make its stopping quicker.`, true);
    }, time);
  }

  #stopNextChild(): void {
    for (let last = this.children.at(-1); last !== undefined; last = this.children.at(-1)) {
      if (!last.requestStop(true)) return;
    }
    this.#endPhase = 'hook';
    this.#runStopping();
  }

  #runStopping(): void {
    const stopping = this.#skipsStopping ? undefined : this.#handlers?.stopping;
    if (stopping === undefined) {
      this.#down();
      return;
    }
    const incarnation = this.#incarnation;
    const over = () => this.#post({ kind: 'stopping-over', incarnation });
    try {
      const result: unknown = stopping.call(this.#handlers as Handlers, this.reason as ExitReason);
      if (isPromise(result)) {
        Promise.resolve(result).then(over, (error: unknown) => {
          this.#report(error, 'stopping');
          over();
        });
        return;
      }
    } catch (error) {
      this.#report(error, 'stopping');
    }
    this.#down();
  }

  /** The incarnation is over. */
  #down(): void {
    this.#endPhase = 'over';
    if (this.#shutdownTimer !== undefined) this.clock.clearTimeout(this.#shutdownTimer);
    this.#shutdownTimer = undefined;
    this.#handlers = undefined;
    this.#receive = undefined;
    this.#work = undefined;
    this.#context = undefined;
    this.#guardian = undefined;
    if (this.#endsForGood()) this.#forGood = true;
    if (this.#forGood) {
      this.retire();
      return;
    }
    this.#move('down');
    if (this.parent !== undefined) this.parent.#post({ kind: 'child', child: this });
  }

  retire(): void {
    this.#forGood = true;
    this.#move('retired');
    this.#closeMailbox();
    if (this.parent !== undefined) this.parent.#detach(this);
    const watchers = [...this.#watchers];
    this.#watchers.clear();
    for (const watcher of watchers) watcher.terminated(this.ref, this.reason as ExitReason);
    for (const request of this.#requests.splice(0)) request.refuse();
    for (let mail = this.mailbox.control.shift(); mail !== undefined; mail = this.mailbox.control.shift()) {
      if (mail.kind === 'request') mail.request.refuse();
    }
    if (this.parent !== undefined) this.parent.#post({ kind: 'child', child: this });
    this.onRetired?.();
  }

  /** No further code of this actor and of everything under it is called. */
  #kill(why: string, report: boolean): void {
    if (this.state === 'stopped') return;
    if (this.state === 'restarting') {
      this.retire();
      return;
    }
    for (let last = this.children.at(-1); last !== undefined; last = this.children.at(-1)) {
      last.#forGood = true;
      last.#kill(`${last.path} was killed with the actor above it: ${why}`, report);
    }
    this.#incarnation++;
    this.reason = new ActorError('ERR_ACTOR_KILLED', why);
    if (report) this.#report(this.reason, 'stopping');
    this.#exiting = undefined;
    this.#abandon();
    if (this.state !== 'stopping') this.#move(this.state === 'running' ? 'ended' : 'failed');
    this.#down();
  }

  #closeMailbox(): void {
    this.accepting = false;
    this.mailbox.dropEntries();
    const messages = this.mailbox.messages;
    for (let left = messages.size; left > 0; left--) {
      this.#services.deadLetters.add({ message: messages.shift(), to: this.ref, reason: 'stopped' });
    }
  }

  #detach(child: Cell): void {
    const index = this.children.lastIndexOf(child);
    if (index < 0) return;
    this.children.splice(index, 1);
    if (this.#childNames.get(child.name) === child) this.#childNames.delete(child.name);
  }

  /** From the stop of the system on nobody is told anything new; what waits is still served. */
  refuseMessages(): void {
    this.accepting = false;
    for (const child of this.children) child.refuseMessages();
  }

  // Watching, requests, jobs of a guardian.

  addWatcher(watcher: Watcher): void {
    this.#watchers.add(watcher);
  }

  removeWatcher(watcher: Watcher): void {
    this.#watchers.delete(watcher);
  }

  /** Refused at once when the actor has ended; otherwise control mail, which waits through a restart. */
  ask(request: GuardianRequest): void {
    if (this.state === 'stopped') request.refuse();
    else this.#post({ kind: 'request', request });
  }

  post(run: () => void): void {
    this.#post({ kind: 'run', incarnation: this.#incarnation, run });
  }

  exit(reason: ExitReason): void {
    this.exitWith(reason);
  }

  // The system messages, the same for every node.

  suspend(): void {
    this.#suspended = true;
    this.#hold();
  }

  resume(): void {
    this.#suspended = false;
    this.#updateHeld();
    if (!this.queued && !this.#held) this.#enqueue();
  }

  trace(fn: ((event: TraceEvent) => void) | undefined): void {
    this.#trace = fn;
  }

  child(name: string): Cell | undefined {
    return this.#childNames.get(name);
  }

  node(): TreeNode {
    const node: TreeNode = {
      name: this.name,
      path: this.path,
      kind: this.parent === undefined ? 'system' : this.definition.kind,
      state: this.state,
      restarts: this.restarts,
      mailbox: this.mailbox.messages.size,
      children: this.#guardian === undefined ? this.children.map((child) => child.node()) : this.#guardian.nodes(this.children),
    };
    const inspect = this.#handlers?.inspect;
    if (inspect === undefined) return node;
    try {
      return withInspection(node, inspect.call(this.#handlers as Handlers));
    } catch (error) {
      this.#services.reporter.logged(`inspect of ${this.path} threw`, error);
      return node;
    }
  }

  // Small moves.

  #enqueue(): void {
    this.queued = true;
    this.#services.loop.enqueue(this);
  }

  #hold(): void {
    this.#held = true;
    this.#interrupt = true;
  }

  #updateHeld(): void {
    this.#held = this.state !== 'running' || this.#suspended || this.#pending !== undefined || this.#exiting !== undefined;
  }

  #move(event: CellEvent): void {
    this.state = moveCell(this.state, event);
    if (this.#trace !== undefined) this.#traced({ type: 'state', path: this.path, state: this.state, reason: this.reason });
  }

  #report(error: unknown, phase: FailurePhase): void {
    this.#services.reporter.failure(this.ref, error, phase);
  }

  #traced(event: TraceEvent): void {
    try {
      this.#trace?.(event);
    } catch (error) {
      this.#services.reporter.logged(`the trace of ${this.path} threw`, error);
    }
  }
}

function isPromise(value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && typeof (value as PromiseLike<unknown>).then === 'function';
}

function checkHandlers(handlers: unknown, path: string): Handlers {
  if (isPromise(handlers)) {
    // Nobody waits for it; its rejection must not become an unhandled one.
    handlers.then(undefined, () => {});
    throw new ActorError(
      'ERR_DEFINITION_ASYNC',
      `The definition of ${path} returned a promise; a definition is synchronous. Start the work in it and tell the result to ctx.self.`,
    );
  }
  if (typeof handlers !== 'object' || handlers === null || typeof (handlers as Handlers).receive !== 'function') {
    throw new ActorError('ERR_DEFINITION_INVALID', `The definition of ${path} must return handlers with a receive function.`);
  }
  return handlers as Handlers;
}
