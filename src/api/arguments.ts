// What the methods of streams ask of their arguments.

import { MillraceError } from '../errors.ts';
import { type AnyAggregate, type AsyncMapOptions, MAIN, type ProcessSpec, type WatermarkStrategy } from '../graph/node.ts';

export function checked(fn: unknown, what: string): void {
  if (typeof fn !== 'function') throw new MillraceError('PLAN_INVALID', `${what} needs a function.`);
}

export function aggregateOf(uid: string, fn: unknown): AnyAggregate {
  const { create, add, result } = (fn ?? {}) as Partial<AnyAggregate>;
  if (typeof create !== 'function' || typeof add !== 'function' || typeof result !== 'function')
    throw new MillraceError('PLAN_INVALID', `aggregate('${uid}') needs an aggregate function with create, add and result.`, { uid });
  return fn as AnyAggregate;
}

export function specOf(uid: string, definition: object, handlers: readonly ('onRecord' | 'onLeft' | 'onRight')[]): ProcessSpec {
  const given = definition as Readonly<Record<string, unknown>>;
  for (const handler of handlers)
    if (typeof given[handler] !== 'function') throw new MillraceError('PLAN_INVALID', `The process '${uid}' needs ${handler}.`, { uid });
  // The definition itself is called, so that handlers keep their `this`.
  return Object.assign(Object.create(definition) as ProcessSpec, { state: given.state ?? {} });
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
