// The errors of the actor runtime: a stable code, a sentence that says what to do, and whether trying again can help.
//
// What: one class, one table of codes. Retryable is a property of the code: a refusal that another moment may lift
// (a name still in use, a restart under way, an answer that came too late) is retryable; a mistake in a program is not.

const RETRYABLE = {
  ERR_ACTOR_FAILED: false,
  ERR_ACTOR_KILLED: true,
  ERR_ACTOR_STOPPED: false,
  ERR_ACTOR_UNKNOWN: false,
  ERR_ASK_TIMEOUT: true,
  ERR_BEHAVIOUR_INVALID: false,
  ERR_CHILD_ALREADY_PRESENT: false,
  ERR_CHILD_ALREADY_STARTED: false,
  ERR_CHILD_NOT_FOUND: false,
  ERR_CHILD_RESTARTING: true,
  ERR_CHILD_RUNNING: false,
  ERR_CHILD_SPEC_INVALID: false,
  ERR_CHILD_START_FAILED: true,
  ERR_DEFINITION_ASYNC: false,
  ERR_DEFINITION_INVALID: false,
  ERR_NAME_INVALID: false,
  ERR_NAME_TAKEN: true,
  ERR_NOT_A_CHILD: false,
  ERR_NOT_A_SUPERVISOR: false,
  ERR_OPTIONS_INVALID: false,
  ERR_SUPERVISOR_INVALID: false,
  ERR_SYSTEM_STOPPED: false,
} as const;

/** The stable names of errors of this runtime; docs/errors.md says of each what it means and what to do. */
export type ActorErrorCode = keyof typeof RETRYABLE;

/**
 * Every code of this runtime, for documentation and for the test that keeps both in step.
 * @example
 * assert.ok(ACTOR_ERROR_CODES.includes('ERR_ASK_TIMEOUT'));
 */
export const ACTOR_ERROR_CODES = Object.keys(RETRYABLE) as readonly ActorErrorCode[];

/**
 * Whatever this runtime throws or gives as a reason. An error of user code is its `cause`, or the reason itself.
 * @example
 * const t = testSystem();
 * const silent = t.system.spawn(defineActor<ActorRef<string>>(() => ({ receive() {} })));
 * const refused = assert.rejects(silent.ask<string>((replyTo) => replyTo, { timeout: 100 }), (error) => error instanceof ActorError && error.retryable);
 * await t.advance(100);
 * await refused;
 */
export class ActorError extends Error {
  override readonly name = 'ActorError';
  readonly code: ActorErrorCode;
  /** Whether trying the same again can help. */
  readonly retryable: boolean;

  constructor(code: ActorErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
    this.retryable = RETRYABLE[code];
  }
}

/** What user code threw, as an Error: exit reasons and watchers rest on that, and a string has no stack. */
export function asError(thrown: unknown): Error {
  if (thrown instanceof Error) return thrown;
  return new ActorError('ERR_ACTOR_FAILED', `An actor threw ${describe(thrown)}, which is not an Error; throw Error objects, so that reasons carry a stack.`, {
    cause: thrown,
  });
}

function describe(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value);
  if (typeof value === 'object' && value !== null) return 'an object';
  return String(value);
}
