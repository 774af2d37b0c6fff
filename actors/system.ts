// The actor system: the root of a tree, what its actors share, and the one door for looking at any of them.
//
// Who owns what: the system owns loop, clock, dead letters and open asks; its root cell owns the actors. `stop()` ends the
// actors in reverse order of their start, then lets go of the clock, and leaves nothing that keeps a process alive.

import type { ActorRef } from './actor-ref.ts';
import { Asks } from './ask.ts';
import type { Behaviour, SpawnOptions } from './behaviour.ts';
import { Cell } from './cell.ts';
import { type Clock, RealClock } from './clock.ts';
import { type DeadLetter, type DeadLetterReport, DeadLetters } from './dead-letters.ts';
import { Definition } from './definition.ts';
import { ActorError } from './errors.ts';
import { HostLoop, type Loop } from './host-loop.ts';
import { type FailurePhase, type ParentLog, Reporter } from './log.ts';
import type { Services } from './services.ts';
import { nameFault } from './spawn-options.ts';
import type { TraceEvent } from './trace.ts';
import type { TreeNode } from './tree.ts';

/** What a system is made with. */
export interface SystemOptions {
  /** The name of the root in the tree; default `system`. */
  name?: string;
  /** Default: the machine's, in epoch milliseconds. */
  clock?: Clock;
  /** Default: Math.random. It spreads backoff waits. */
  random?: () => number;
  /** Where `ctx.log` and failures go, pino-compatible; without one, warnings and errors are process warnings. */
  logger?: ParentLog;
  /** Milliseconds a turn of the loop may take before the event loop goes first; default 4. */
  turnMs?: number;
  /** Told of each; without it they are only counted. */
  onDeadLetter?: (letter: DeadLetter) => void;
  /** Told of each incarnation that an error ends, each start that fails, each error while stopping. */
  onFailure?: (ref: ActorRef<never>, error: unknown, phase: FailurePhase) => void;
}

/** A tree of actors, and the door for looking at them. Paths are `/` and names joined by `/`; a path that no actor has is ERR_ACTOR_UNKNOWN. */
export interface ActorSystem {
  /** Starts an actor at the top; ERR_SYSTEM_STOPPED, ERR_NAME_TAKEN, ERR_NAME_INVALID, ERR_OPTIONS_INVALID, ERR_BEHAVIOUR_INVALID. */
  spawn<M>(behaviour: Behaviour<M>, options?: SpawnOptions): ActorRef<M>;
  /** Every actor as plain data, from the root down. */
  tree(): TreeNode;
  deadLetters(): DeadLetterReport;
  /** Ends every actor, in reverse order of their start. May be called again and gives the same promise. */
  stop(): Promise<void>;
  /** The node of one actor; undefined where no actor has that path. */
  status(path: string): TreeNode | undefined;
  /** No message is served and no work done until `resume`; control mail is. */
  suspend(path: string): void;
  resume(path: string): void;
  /** Calls `fn` for each message and each move of one actor; undefined ends it. */
  trace(path: string, fn: ((event: TraceEvent) => void) | undefined): void;
}

const TURN_MS = 4;

/**
 * A system of actors on the machine's clock. It keeps the process alive while timers are open; `stop()` ends it.
 *
 * @throws ERR_OPTIONS_INVALID
 * @example
 * const system = createSystem({ name: 'demo' });
 * const echo = defineActor<ActorRef<string>>(() => ({ receive: (replyTo) => replyTo.tell('here') }));
 * const ref = system.spawn(echo, { name: 'echo' });
 * assert.equal(await ref.ask<string>((replyTo) => replyTo), 'here');
 * assert.deepEqual(system.tree().children.map(({ path, state }) => `${path} ${state}`), ['/echo running']);
 * await system.stop();
 */
export function createSystem(options: SystemOptions = {}): ActorSystem {
  const { turnMs = TURN_MS } = options;
  if (typeof turnMs !== 'number' || !(turnMs > 0)) {
    throw new ActorError('ERR_OPTIONS_INVALID', `createSystem: turnMs must be milliseconds above 0, got ${String(turnMs)}.`);
  }
  return new System(options, new HostLoop(turnMs), options.clock ?? new RealClock(), options.random ?? Math.random);
}

/** A system over a given loop, for the host's and for the test's. */
export class System implements ActorSystem {
  readonly #services: Services;
  readonly #root: Cell;
  #stopped: Promise<void> | undefined;

  constructor(options: SystemOptions, loop: Loop, clock: Clock, random: () => number) {
    const name = options.name ?? 'system';
    const fault = nameFault(name);
    if (fault !== undefined) throw new ActorError('ERR_OPTIONS_INVALID', `createSystem: ${fault}.`);
    const reporter = new Reporter(options.logger, options.onFailure);
    const deadLetters = new DeadLetters(options.onDeadLetter, (error) => reporter.logged('onDeadLetter threw', error));
    this.#services = { loop, clock, random, asks: new Asks(clock, deadLetters), deadLetters, reporter, stopping: false };
    const root = new Definition('supervisor', () => ({ receive() {} }));
    this.#root = new Cell(this.#services, undefined, name, root, { shutdown: 'infinity' });
    this.#root.start();
  }

  spawn<M>(behaviour: Behaviour<M>, options?: SpawnOptions): ActorRef<M> {
    return this.#root.spawn(behaviour, options);
  }

  tree(): TreeNode {
    return this.#root.node();
  }

  deadLetters(): DeadLetterReport {
    return this.#services.deadLetters.report();
  }

  stop(): Promise<void> {
    this.#stopped ??= new Promise((resolve) => {
      this.#services.stopping = true;
      this.#services.asks.stop();
      this.#root.onRetired = () => {
        if (this.#services.clock instanceof RealClock) this.#services.clock.release();
        resolve();
      };
      this.#root.refuseMessages();
      this.#root.requestStop(true);
    });
    return this.#stopped;
  }

  status(path: string): TreeNode | undefined {
    const cell = this.#find(path);
    if (cell !== undefined) return cell.node();
    // A child whose supervisor keeps its spec has a node without an actor.
    const above = this.#find(path.slice(0, path.lastIndexOf('/')) || '/');
    return above?.node().children.find((node) => node.path === path);
  }

  suspend(path: string): void {
    this.#require(path).suspend();
  }

  resume(path: string): void {
    this.#require(path).resume();
  }

  trace(path: string, fn: ((event: TraceEvent) => void) | undefined): void {
    this.#require(path).trace(fn);
  }

  #find(path: string): Cell | undefined {
    if (typeof path !== 'string' || !path.startsWith('/')) return undefined;
    let cell: Cell | undefined = this.#root;
    for (const name of path === '/' ? [] : path.slice(1).split('/')) cell = cell?.child(name);
    return cell;
  }

  #require(path: string): Cell {
    const cell = this.#find(path);
    if (cell === undefined) throw new ActorError('ERR_ACTOR_UNKNOWN', `No living actor has the path ${String(path)}; tree() shows those that have.`);
    return cell;
  }
}
