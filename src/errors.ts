// Errors that a user can meet: a stable code, a sentence, what to do, and whether trying again can help.
//
// Every code stands in `docs/errors.md` and in CODES; a test keeps the two in step. Errors of user code are never wrapped away: they are the `cause`.

/** Whether a retry can help is a property of the code, unless the thrower or a cause knows better. */
export const CODES = {
  // plan and options
  JOB_NAME_INVALID: { retryable: false },
  UID_INVALID: { retryable: false },
  UID_DUPLICATE: { retryable: false },
  PLAN_EMPTY: { retryable: false },
  PLAN_INVALID: { retryable: false },
  OPTION_INVALID: { retryable: false },
  SINK_NEVER_COMMITS: { retryable: false },
  // records
  USER_FUNCTION_FAILED: { retryable: true },
  HANDLER_IS_ASYNC: { retryable: false },
  CONTEXT_USED_OUTSIDE_RECORD: { retryable: false },
  STATE_USED_AFTER_CALLBACK: { retryable: false },
  KEY_UNSUPPORTED: { retryable: false },
  PARTITION_INVALID: { retryable: false },
  ASYNC_TIMEOUT: { retryable: true },
  TIMESTAMP_MISSING: { retryable: false },
  TIMER_INVALID: { retryable: false },
  RECORD_TOO_LARGE: { retryable: false },
  RECORD_UNDECODABLE: { retryable: false },
  RECORD_UNENCODABLE: { retryable: false },
  SCHEMA_IS_ASYNC: { retryable: false },
  // running
  SOURCE_FAILED: { retryable: true },
  SINK_FAILED: { retryable: true },
  COMMIT_ID_REUSED: { retryable: false },
  WRITER_FENCED: { retryable: false },
  JOB_ENDED: { retryable: false },
  RUNTIME_FAILED: { retryable: true },
  // state; the same codes as in state-backends
  STATE_NOT_SERIALIZABLE: { retryable: false },
  STATE_MISUSED: { retryable: false },
  STATE_IO: { retryable: true },
  STATE_NOT_FOUND: { retryable: false },
  STATE_EDIT_REFUSED: { retryable: false },
  REPLAY_REFUSED: { retryable: false },
  // checkpoints and restore
  CHECKPOINT_FAILED: { retryable: true },
  CHECKPOINT_EXPIRED: { retryable: true },
  CHECKPOINTS_OFF: { retryable: false },
  CHECKPOINT_NOT_FOUND: { retryable: false },
  CHECKPOINT_DIRECTORY: { retryable: true },
  STORAGE_UNREACHABLE: { retryable: true },
  STORAGE_FAILED: { retryable: true },
  STORAGE_CREDENTIALS: { retryable: false },
  STORAGE_FORBIDDEN: { retryable: false },
  STORAGE_NO_BUCKET: { retryable: false },
  STORAGE_CLOCK_SKEW: { retryable: false },
  STORAGE_REFUSED: { retryable: false },
  JOB_ALREADY_RUNNING: { retryable: true },
  SNAPSHOT_CORRUPT: { retryable: false },
  SNAPSHOT_INCOMPATIBLE: { retryable: false },
  RESTORE_WOULD_DUPLICATE: { retryable: false },
  RESTORE_STATE_UNCLAIMED: { retryable: false },
  MAX_PARALLELISM_CHANGED: { retryable: false },
  RESCALE_REFUSED: { retryable: true },
  SAVEPOINT_EXISTS: { retryable: false },
  SAVEPOINT_FAILED: { retryable: true },
  // files
  FILE_NOT_FOUND: { retryable: false },
  FILE_CHANGED: { retryable: false },
  FILE_UNREADABLE: { retryable: true },
  FILE_EXISTS: { retryable: false },
  MARKER_LOST: { retryable: false },
  TOPIC_RECREATED: { retryable: false },
  BUCKET_INVALID: { retryable: false },
  DIRECTORY_UNWRITABLE: { retryable: true },
  // services and their packages
  PACKAGE_MISSING: { retryable: false },
  REDIS_UNREACHABLE: { retryable: true },
  REDIS_REFUSED: { retryable: false },
  STREAM_TRIMMED: { retryable: false },
  POSTGRES_UNREACHABLE: { retryable: true },
  POSTGRES_REFUSED: { retryable: false },
  // Kafka
  KAFKA_UNREACHABLE: { retryable: true },
  KAFKA_AUTHENTICATION: { retryable: false },
  KAFKA_FORBIDDEN: { retryable: false },
  KAFKA_TOPIC_MISSING: { retryable: false },
  KAFKA_OFFSET_LOST: { retryable: false },
  KAFKA_FENCED: { retryable: false },
  KAFKA_RECORD_TOO_LARGE: { retryable: false },
  KAFKA_TIMESTAMP: { retryable: false },
  KAFKA_COMPRESSION: { retryable: false },
  KAFKA_CORRUPT: { retryable: true },
  KAFKA_VERSION: { retryable: false },
  KAFKA_REFUSED: { retryable: false },
  KAFKA_FAILED: { retryable: true },
  KAFKA_CLOSED: { retryable: false },
  KAFKA_MARKER_TOPIC: { retryable: false },
  KAFKA_TRANSACTION_TIMEOUT: { retryable: false },
  // ZooKeeper and the cluster
  ZOOKEEPER_UNREACHABLE: { retryable: true },
  ZOOKEEPER_CONNECTION_LOST: { retryable: true },
  ZOOKEEPER_SESSION_EXPIRED: { retryable: true },
  ZOOKEEPER_AUTHENTICATION: { retryable: false },
  ZOOKEEPER_FORBIDDEN: { retryable: false },
  ZOOKEEPER_REFUSED: { retryable: false },
  ZOOKEEPER_VALUE_TOO_LARGE: { retryable: false },
  ZOOKEEPER_CLOSED: { retryable: false },
  LEADER_DEPOSED: { retryable: false },
  LEADER_UNREACHABLE: { retryable: true },
  CLUSTER_LEFT: { retryable: true },
  STORAGE_NOT_SHARED: { retryable: false },
  // formats and connections
  FORMAT_NOT_READY: { retryable: false },
  SCHEMA_INVALID: { retryable: false },
  REGISTRY_UNREACHABLE: { retryable: true },
  REGISTRY_REFUSED: { retryable: false },
  CONNECTION_FAILED: { retryable: true },
  HTTP_REFUSED: { retryable: false },
  // between hosts
  HOST_LOST: { retryable: true },
  LINK_LOST: { retryable: true },
  LINK_CORRUPT: { retryable: true },
  LINK_REFUSED: { retryable: false },
  // command line and control door
  MODULE_NOT_FOUND: { retryable: false },
  MODULE_FAILED: { retryable: false },
  MODULE_WITHOUT_JOB: { retryable: false },
  PORT_IN_USE: { retryable: true },
  CONTROL_UNAUTHORIZED: { retryable: false },
  CONTROL_FORBIDDEN: { retryable: false },
  CONTROL_NOT_FOUND: { retryable: false },
  JOB_NOT_FOUND: { retryable: true },
  JOB_AMBIGUOUS: { retryable: false },
  // set by tests
  FAULT_INJECTED: { retryable: true },
} as const satisfies Record<string, { retryable: boolean }>;

/** The stable names of errors; docs/errors.md says of each what it means and what to do. */
export type ErrorCode = keyof typeof CODES;

export interface ErrorDetails {
  /** What the user can do about it, one sentence; where a disk is full, that says so instead. */
  readonly todo?: string;
  /** The operator that it happened in. */
  readonly uid?: string;
  readonly cause?: unknown;
  /** Default: what the code says, unless a cause says that trying again cannot help. */
  readonly retryable?: boolean;
}

/**
 * Whatever Millrace throws at its user. An error of user code is its `cause`.
 * @example
 * const error = new MillraceError('RECORD_UNDECODABLE', 'The record has no total.', { todo: 'Look at the dead letters of the source.' });
 * assert.equal(error.code, 'RECORD_UNDECODABLE');
 * assert.equal(error.retryable, false);
 * assert.equal(error.message, 'The record has no total. Look at the dead letters of the source.');
 */
export class MillraceError extends Error {
  /** What happened; `message` is this and `todo`. */
  readonly sentence: string;
  readonly code: ErrorCode;
  /** The operator that it happened in, where there is one. */
  readonly uid: string | undefined;
  /** What to do about it; the message ends with it. */
  readonly todo: string | undefined;
  /** Whether trying the same again can help. */
  readonly retryable: boolean;

  constructor(code: ErrorCode, said: string, details: ErrorDetails = {}) {
    const sentence = oneStop(said);
    const todo = isDiskFull(details.cause) ? DISK_FULL : details.todo;
    super(todo === undefined || sentence.endsWith(todo) ? sentence : `${sentence} ${todo}`, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = 'MillraceError';
    this.sentence = sentence;
    this.code = code;
    this.uid = details.uid;
    this.todo = todo;
    // What user code throws has a policy, whatever was behind it.
    this.retryable = details.retryable ?? (CODES[code].retryable && (code === 'USER_FUNCTION_FAILED' || !isHopeless(details.cause)));
  }
}

/**
 * What the system says of paths and rights, the same at every try. Not among them: a disk that fails or is full, too many open files, what is gone or busy. The
 * same in state-backends.
 */
export const HOPELESS_ERRNOS: ReadonlySet<unknown> = new Set(['ENOTDIR', 'EISDIR', 'EACCES', 'ENAMETOOLONG', 'EROFS']);

/** Whether an error, or what it was caused by, says that trying again cannot help. The nearest that knows decides. */
function isHopeless(error: unknown): boolean {
  for (let at = error, depth = 0; at instanceof Error && depth < 10; at = at.cause, depth++) {
    const { code, retryable } = at as { code?: unknown; retryable?: unknown };
    if (typeof retryable === 'boolean') return !retryable;
    if (HOPELESS_ERRNOS.has(code)) return true;
  }
  return false;
}

const DISK_FULL = 'The disk is full: make room on it.';

/** LevelDB has no codes for it. */
function isDiskFull(error: unknown): boolean {
  for (let at = error, depth = 0; at instanceof Error && depth < 10; at = at.cause, depth++) {
    const { code } = at as { code?: unknown };
    if (code === 'ENOSPC' || code === 'EDQUOT' || /No space left on device|Disk quota exceeded/.test(at.message)) return true;
  }
  return false;
}

/** A sentence that ends with the message of another error, which may be a sentence itself, has one full stop. */
function oneStop(sentence: string): string {
  return sentence.replace(/(?<!\.)([.!?])\.$/, '$1');
}

/** Whether it comes of a leadership that is over: then nothing is wrong with the job. */
export function isDeposed(error: unknown): boolean {
  for (let at = error, depth = 0; at instanceof Error && depth < 10; at = at.cause, depth++)
    if (codeOf(at) === 'LEADER_DEPOSED' || codeOf(at) === 'CLUSTER_LEFT') return true;
  return false;
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

export function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}

/** The code of an error from below, where it is one of ours. */
export function codeOf(error: unknown): ErrorCode | undefined {
  const { code } = (error ?? {}) as { code?: unknown };
  return typeof code === 'string' && Object.hasOwn(CODES, code) ? (code as ErrorCode) : undefined;
}
