// Plain data: objects and arrays without a class of their own, the only values that are frozen or lent.

export function isPlain(value: unknown): value is Record<string, unknown> | unknown[] {
  if (typeof value !== 'object' || value === null) return false;
  if (Array.isArray(value)) return true;
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

const frozen = new WeakSet<object>();

/** Freezes a value and everything in it: what was emitted is not changed any more (protocols 16). */
export function deepFrozen<T>(value: T): T {
  if (!isPlain(value) || frozen.has(value)) return value;
  frozen.add(value);
  Object.freeze(value);
  for (const inner of Object.values(value)) deepFrozen(inner);
  return value;
}
