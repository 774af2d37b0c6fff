// What the methods of streams ask of their arguments.

import { type AnyKind, declaredOf } from '../../state-backends/index.ts';
import { MillraceError } from '../errors.ts';
import { type AnyAggregate, type AsyncMapOptions, MAIN, type ProcessSpec, type WatermarkStrategy } from '../graph/node.ts';

export function checked(fn: unknown, what: string, uid?: string): void {
  if (typeof fn !== 'function') throw new MillraceError('PLAN_INVALID', `${what} needs a function.`, uid === undefined ? {} : { uid });
}

export function aggregateOf(uid: string, fn: unknown): AnyAggregate {
  const { create, add, result } = (fn ?? {}) as Partial<AnyAggregate>;
  if (typeof create !== 'function' || typeof add !== 'function' || typeof result !== 'function')
    throw new MillraceError('PLAN_INVALID', `aggregate('${uid}') needs an aggregate function with create, add and result.`, { uid });
  return fn as AnyAggregate;
}

/** What a process may declare, by what it is given. */
export const SCOPES = {
  keyed: ['keyed'],
  unkeyed: ['operator'],
  'keyed beside a broadcast stream': ['keyed', 'broadcast'],
  'unkeyed beside a broadcast stream': ['operator', 'broadcast'],
} as const satisfies Record<string, readonly AnyKind['scope'][]>;
export type ProcessForm = keyof typeof SCOPES;

const KINDS = {
  keyed: 'value, list, map, reducing and aggregating belong to keyed processes',
  operator: 'splitList and unionList belong to unkeyed processes',
  broadcast: 'broadcastMap belongs to processes beside a broadcast stream',
} as const satisfies Record<AnyKind['scope'], string>;

export function specOf(uid: string, definition: object, handlers: readonly ('onRecord' | 'onLeft' | 'onRight')[], form: ProcessForm): ProcessSpec {
  const given = (definition ?? {}) as Readonly<Record<string, unknown>>;
  for (const handler of handlers)
    if (typeof given[handler] !== 'function') throw new MillraceError('PLAN_INVALID', `The process '${uid}' needs ${handler}.`, { uid });
  if (form.startsWith('unkeyed') && given.onTimer !== undefined)
    throw new MillraceError('PLAN_INVALID', `The process '${uid}' has onTimer, and no timers: its stream is not keyed.`, {
      uid,
      todo: 'Put keyBy() in front of it, or take onTimer away.',
    });
  const state = (given.state ?? {}) as Record<string, AnyKind>;
  checkState(uid, state, form);
  // The definition itself is called, so that handlers keep their `this`.
  return Object.assign(Object.create(definition) as ProcessSpec, { state });
}

/** What is declared is state of a kind that can be had there, under a name that is the user's, with options that mean something. */
export function checkState(uid: string, state: Readonly<Record<string, AnyKind>>, form: ProcessForm): void {
  for (const [name, kind] of Object.entries(state)) {
    const declared = declaredOf(kind);
    if (declared === undefined)
      throw new MillraceError('PLAN_INVALID', `The state ${name} of '${uid}' is none.`, { uid, todo: 'Declare it with value, list, map and their like.' });
    if (!(SCOPES[form] as readonly string[]).includes(kind.scope))
      throw new MillraceError('PLAN_INVALID', `'${uid}' is ${form} and cannot have the state ${name}: ${KINDS[kind.scope]}.`, { uid });
    if (name.startsWith('.'))
      throw new MillraceError('PLAN_INVALID', `The state ${name} of '${uid}' begins with a dot, as those of Millrace do.`, { uid, todo: 'Rename it.' });
    const { ttl, ttlOn, ttlClock, version } = declared.options;
    const refuse = (sentence: string, todo: string): never => {
      throw new MillraceError('OPTION_INVALID', `The state ${name} of '${uid}': ${sentence}`, { uid, todo });
    };
    if (ttl !== undefined && !(typeof ttl === 'number' && ttl > 0 && ttl < Number.POSITIVE_INFINITY))
      refuse('ttl must be milliseconds above 0.', 'Leave it out for state that stays.');
    if (ttlOn !== undefined && ttlOn !== 'write' && ttlOn !== 'read') refuse(`ttlOn '${String(ttlOn)}' is none.`, "Use 'write' or 'read'.");
    if (ttlClock !== undefined && ttlClock !== 'processing' && ttlClock !== 'event')
      refuse(`ttlClock '${String(ttlClock)}' is none.`, "Use 'processing' or 'event'.");
    if (version !== undefined && !(Number.isInteger(version) && version >= 0 && version < 2 ** 32))
      refuse('version must be a whole number from 0.', 'Count it up by one with each change of what is stored.');
  }
}

export function nameOfOutput(output: { readonly name: string } | string): string {
  const name = typeof output === 'string' ? output : output.name;
  if (name === MAIN) throw new MillraceError('PLAN_INVALID', 'An output needs a name.');
  return name;
}

/** Of a source, or of `timestamps()`. */
export function checkStrategy<T>(what: string, uid: string | undefined, strategy: WatermarkStrategy<T> | undefined): void {
  const { outOfOrderness, idleness, align } = strategy ?? {};
  const refuse = (sentence: string): never => {
    throw new MillraceError('OPTION_INVALID', `${what}: ${sentence}`, uid === undefined ? {} : { uid });
  };
  if (outOfOrderness !== undefined && !(outOfOrderness >= 0)) refuse('outOfOrderness must be milliseconds of 0 or more.');
  if (idleness !== undefined && !(idleness > 0)) refuse('idleness must be milliseconds above 0.');
  if (align !== undefined && !(typeof align.group === 'string' && align.maxDrift >= 0))
    refuse('align needs a group and a maxDrift in milliseconds of 0 or more.');
}

export function checkAsync(uid: string, { capacity, timeout, retry }: AsyncMapOptions): void {
  const refuse = (sentence: string): never => {
    throw new MillraceError('OPTION_INVALID', `asyncMap('${uid}'): ${sentence}`, { uid });
  };
  if (capacity !== undefined && !(Number.isInteger(capacity) && capacity > 0)) refuse('capacity must be a whole number above 0.');
  if (timeout !== undefined && !(timeout > 0)) refuse('timeout must be milliseconds above 0.');
  if (retry !== undefined && !(Number.isInteger(retry.attempts) && retry.attempts > 0)) refuse('retry.attempts must be a whole number above 0.');
}
