// What goes wrong with ZooKeeper, as errors with codes.
//
// Invariants:
//  E1  `unknown` is true where a write was sent and not answered: it may have been done, may be done yet while the session lives, or not at all. Nothing may be
//      concluded, deleted or announced from it before a read behind `Client.settle()` has told (protocols 17).
//  E2  `reason` says what the server refused, for recipes that expect it; a user reads the code and the sentence.

import { type ErrorCode, type ErrorDetails, MillraceError, messageOf } from '../../errors.ts';

/** What a server refuses that a recipe may count on. */
export type Refusal = 'no-node' | 'node-exists' | 'bad-version' | 'not-empty' | 'ephemeral-parent';

export class ZooKeeperError extends MillraceError {
  /** E1. */
  readonly unknown: boolean;
  /** E2. */
  readonly reason: Refusal | undefined;
  /** Of a `multi` that was refused: which of its operations, from 0. */
  readonly operation: number | undefined;

  constructor(
    code: ErrorCode,
    said: string,
    details: ErrorDetails & { readonly unknown?: boolean; readonly reason?: Refusal | undefined; readonly operation?: number | undefined } = {},
  ) {
    super(code, said, { todo: TODO[code], ...details });
    this.unknown = details.unknown ?? false;
    this.reason = details.reason;
    this.operation = details.operation;
  }
}

const TODO: Partial<Record<ErrorCode, string>> = {
  ZOOKEEPER_UNREACHABLE: 'Do the servers run, is more than half of the ensemble up, and are `connect`, `tls` and the network right?',
  ZOOKEEPER_CONNECTION_LOST: 'Nothing, where it passes; else look after the servers and the network.',
  ZOOKEEPER_SESSION_EXPIRED: 'Nothing: a new session is made. Where it happens often, raise `sessionTimeout` or look for what blocks the event loop.',
  ZOOKEEPER_AUTHENTICATION: 'Correct `auth`: the servers must know its scheme.',
  ZOOKEEPER_FORBIDDEN: 'Give `auth` the credentials that the nodes were created with, or change their ACL.',
  ZOOKEEPER_REFUSED: 'Read what it says.',
  ZOOKEEPER_VALUE_TOO_LARGE: 'Keep the data elsewhere, and its address in ZooKeeper.',
  ZOOKEEPER_CLOSED: 'Ask before `close()`.',
};

/** The numbers that servers answer with. */
const CONNECTION_LOSS = -4;
const NO_AUTH = -102;
const SESSION_EXPIRED = -112;
const AUTH_FAILED = -115;
const REFUSALS: ReadonlyMap<number, Refusal> = new Map([
  [-101, 'no-node'],
  [-103, 'bad-version'],
  [-108, 'ephemeral-parent'],
  [-110, 'node-exists'],
  [-111, 'not-empty'],
]);
const SAID: Readonly<Record<Refusal, string>> = {
  'no-node': 'there is no such node',
  'bad-version': 'it has another version',
  'ephemeral-parent': 'an ephemeral node has no children',
  'node-exists': 'it is there already',
  'not-empty': 'it has children',
};

/** What the client library calls back with. */
export interface Answered {
  readonly code?: number;
  readonly message: string;
}

/** The connection was not there any more when the answer was due. */
export function isLoss(error: Answered): boolean {
  return error.code === CONNECTION_LOSS || error.code === SESSION_EXPIRED || error.code === AUTH_FAILED;
}

export function refused(cause: Answered, what: string, operation?: number): ZooKeeperError {
  const { code = 0 } = cause;
  const reason = REFUSALS.get(code);
  if (reason !== undefined) return new ZooKeeperError('ZOOKEEPER_REFUSED', `ZooKeeper refuses to ${what}: ${SAID[reason]}.`, { reason, operation, cause });
  if (code === NO_AUTH) return new ZooKeeperError('ZOOKEEPER_FORBIDDEN', `ZooKeeper does not allow us to ${what}.`, { operation, cause });
  if (code === AUTH_FAILED) return rejected(cause);
  return new ZooKeeperError('ZOOKEEPER_REFUSED', `ZooKeeper refuses to ${what}: ${cause.message}.`, { operation, cause });
}

/** E1: of a read nothing is unknown. */
export function lost(what: string, write: boolean): ZooKeeperError {
  const outcome = write ? ' Whether it was done is not known.' : '';
  return new ZooKeeperError('ZOOKEEPER_CONNECTION_LOST', `The connection to ZooKeeper was lost while it was asked to ${what}.${outcome}`, { unknown: write });
}

export function unreachable(connect: string, ms: number, cause?: unknown): ZooKeeperError {
  const why = cause === undefined ? '' : `; the last one: ${messageOf(cause).replace(/\.$/, '')}`;
  return new ZooKeeperError('ZOOKEEPER_UNREACHABLE', `No ZooKeeper server of ${connect} answers within ${ms} ms${why}.`, { cause });
}

export function rejected(cause?: unknown): ZooKeeperError {
  return new ZooKeeperError('ZOOKEEPER_AUTHENTICATION', 'ZooKeeper does not accept who we are.', { cause });
}

export function expired(what: string): ZooKeeperError {
  return new ZooKeeperError('ZOOKEEPER_SESSION_EXPIRED', `The session with ZooKeeper has expired, and with it ${what}.`);
}

export function closed(): ZooKeeperError {
  return new ZooKeeperError('ZOOKEEPER_CLOSED', 'The connection to ZooKeeper was closed by its owner.');
}

export function refusalOf(error: unknown): Refusal | undefined {
  return error instanceof ZooKeeperError ? error.reason : undefined;
}

/** Whether it may pass by itself: no connection, or a new session. */
export function isPassing(error: unknown): boolean {
  return error instanceof ZooKeeperError && error.retryable;
}
