// The narrow interface between an actor and the one who looks after its children.
//
// Who owns what: the cell starts, ends and holds mail; its guardian decides what becomes of a child that went down.
// Every cell has one: a supervisor's rules, or the plain parent's (plain-parent.ts).

import type { Behaviour, SpawnOptions } from './behaviour.ts';
import type { Clock } from './clock.ts';
import type { ExitReason } from './exit-reason.ts';
import type { CellState } from './lifecycle.ts';
import type { LocalRef } from './ref.ts';
import type { TreeNode } from './tree.ts';

/** A child as its guardian may use it. */
export interface Ward {
  readonly ref: LocalRef;
  readonly state: CellState;
  readonly reason: ExitReason | undefined;
  readonly restart: 'permanent' | 'transient' | 'temporary';
  /** Starts a new incarnation; false when its start failed, and then `childEnded` follows. */
  start(): boolean;
  /** Asks it to stop, for good or to be started again. True when that is done already; else `childEnded` follows. */
  requestStop(forGood: boolean): boolean;
  /** Ends for good an actor that is between two incarnations. */
  retire(): void;
  node(): TreeNode;
}

/** A supervisor's cell as its guardian may use it. */
export interface GuardianHost {
  readonly path: string;
  readonly clock: Clock;
  readonly random: () => number;
  /** Starts a child at a place among its siblings. */
  adopt(behaviour: Behaviour<never>, options: SpawnOptions, index: number): Ward;
  /** Runs as control mail of this incarnation; not at all when it has ended by then. */
  post(run: () => void): void;
  exit(reason: ExitReason): void;
}

/** A request to a supervisor: it runs when the supervisor serves, or is refused when that has ended. */
export interface GuardianRequest {
  run(guardian: Guardian): void;
  refuse(): void;
}

export interface Guardian {
  /** Starts what is to run from the start; throws when that failed. */
  open(): void;
  /** A child went down (it is `restarting`: decide) or ended for good (`stopped`). Not called once the end of the actor has begun. */
  childEnded(child: Ward): void;
  /** A request of the public functions, served now or once what is under way is done. */
  request(request: GuardianRequest): void;
  /** The end of the actor begins; returns the requests that were not served. */
  close(): GuardianRequest[];
  /** The children's nodes in start order, those of kept specs without an actor included. */
  nodes(living: readonly Ward[]): TreeNode[];
}
