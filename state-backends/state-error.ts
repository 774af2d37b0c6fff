// Errors of keyed state: a stable code, a sentence, what to do, and whether trying again can help.
//
// Codes that the engine has too mean the same there; this folder imports nothing of it and so has its own class.

/** Whether a retry can help is a property of the code, and of the disk's own error where there is one. */
export const STATE_CODES = {
  KEY_UNSUPPORTED: { retryable: false },
  CONTEXT_USED_OUTSIDE_RECORD: { retryable: false },
  SNAPSHOT_CORRUPT: { retryable: false },
  SNAPSHOT_INCOMPATIBLE: { retryable: false },
  STATE_NOT_SERIALIZABLE: { retryable: false },
  STATE_MISUSED: { retryable: false },
  STATE_IO: { retryable: true },
} as const satisfies Record<string, { retryable: boolean }>;

/** What the system says of paths and rights, the same at every try. Not among them: a disk that fails or is full, too many open files. */
export const HOPELESS_ERRNOS: ReadonlySet<unknown> = new Set(['ENOTDIR', 'EISDIR', 'EACCES', 'ENAMETOOLONG', 'EROFS']);

/** The stable names of the errors of state; docs/errors.md says of each what it means and what to do. */
export type StateErrorCode = keyof typeof STATE_CODES;

/** An error of keyed state; the error that a job fails with has it as its `cause`. */
export class StateError extends Error {
  readonly code: StateErrorCode;
  readonly todo: string | undefined;
  readonly retryable: boolean;

  constructor(code: StateErrorCode, sentence: string, details: { readonly todo?: string; readonly cause?: unknown } = {}) {
    super(details.todo === undefined ? sentence : `${sentence} ${details.todo}`, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = 'StateError';
    this.code = code;
    this.todo = details.todo;
    this.retryable = STATE_CODES[code].retryable && !HOPELESS_ERRNOS.has((details.cause as { code?: unknown } | undefined)?.code);
  }
}
