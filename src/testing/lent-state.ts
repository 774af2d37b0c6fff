// Values lent out of state: valid for one callback, and proxies that say so when they are used later (protocols 3).
//
// What: in production a value that `get` gave is the row itself; changing it after the callback changes a checkpoint that has been taken. Under test it is a
// proxy that works like the value while the callback runs and throws STATE_USED_AFTER_CALLBACK afterwards.
//
// Invariants:
//  L1  Only plain objects and arrays are lent as proxies. A part that is frozen is given as it is: nothing can change it, and a proxy may not hide it.
//  L2  No proxy gets into state or into a record: what is set, added or emitted is `owned` first.

import { MillraceError } from '../errors.ts';
import { isPlain } from './plain.ts';

/** What stands behind a proxy. */
const lentOut = new WeakMap<object, object>();

/** The value without proxies, at any depth. */
export function owned<T>(value: T): T {
  return stripped(value, new Set());
}

function stripped<T>(value: T, seen: Set<object>): T {
  if (!isPlain(value)) return value;
  const behind = lentOut.get(value);
  if (behind !== undefined) return behind as T;
  if (seen.has(value) || Object.isFrozen(value)) return withoutProxies(value, seen);
  seen.add(value);
  for (const [name, inner] of Object.entries(value)) {
    const own = stripped(inner, seen);
    if (own !== inner) (value as Record<string, unknown>)[name] = own;
  }
  return value;
}

/** Of a value that cannot be changed: itself, or a copy where one of its own properties is a proxy. */
function withoutProxies<T extends object>(value: T, seen: Set<object>): T {
  if (seen.has(value)) return value;
  seen.add(value);
  const inner = Object.entries(value);
  const own = inner.map(([name, of]) => [name, stripped(of, seen)] as const);
  if (own.every(([, of], i) => of === inner[i]![1])) return value;
  return (Array.isArray(value) ? own.map(([, of]) => of) : Object.fromEntries(own)) as T;
}

/** What one callback is lent. */
export class Loan {
  readonly #uid: string;
  #proxies: WeakMap<object, object> | undefined;
  #handler: ProxyHandler<object> | undefined;
  #over = false;

  constructor(uid: string) {
    this.#uid = uid;
  }

  lend<T>(value: T): T {
    if (!isPlain(value) || lentOut.has(value)) return value;
    this.#proxies ??= new WeakMap();
    const known = this.#proxies.get(value);
    if (known !== undefined) return known as T;
    this.#handler ??= this.#traps();
    const proxy = new Proxy(value, this.#handler);
    this.#proxies.set(value, proxy);
    lentOut.set(proxy, value);
    return proxy as T;
  }

  /** A handle of declared state: what it gives is lent, what it is given is owned. */
  handle<H extends object>(handle: H): H {
    return new Proxy(handle, {
      get: (target, name) => {
        const member: unknown = Reflect.get(target, name, target);
        if (typeof member !== 'function') return member;
        return (...given: unknown[]): unknown => {
          const result: unknown = member.apply(
            target,
            given.map((one) => this.#given(one)),
          );
          // The array that `all()` makes is the caller's, its elements are not.
          if (name === 'all') return (result as unknown[]).map((element) => this.lend(element));
          return isIterator(result) ? this.#iterate(result) : this.lend(result);
        };
      },
    });
  }

  end(): void {
    this.#over = true;
  }

  #given(value: unknown): unknown {
    if (typeof value !== 'function') return owned(isIterator(value) ? [...value] : value);
    return (...values: unknown[]): unknown => owned(value(...values.map((one) => this.lend(one))) as unknown);
  }

  *#iterate(values: Iterable<unknown>): IterableIterator<unknown> {
    for (const value of values) yield this.lend(value);
  }

  #traps(): ProxyHandler<object> {
    return {
      get: (target, name) => {
        this.#check();
        const value: unknown = Reflect.get(target, name);
        const own = Reflect.getOwnPropertyDescriptor(target, name);
        return own !== undefined && own.configurable === false && own.writable === false ? value : this.lend(value);
      },
      set: (target, name, value) => {
        this.#check();
        this.#writable(target);
        return Reflect.set(target, name, owned(value));
      },
      has: (target, name) => {
        this.#check();
        return Reflect.has(target, name);
      },
      deleteProperty: (target, name) => {
        this.#check();
        this.#writable(target);
        return Reflect.deleteProperty(target, name);
      },
      defineProperty: (target, name, descriptor) => {
        this.#check();
        this.#writable(target);
        return Reflect.defineProperty(target, name, 'value' in descriptor ? { ...descriptor, value: owned(descriptor.value) } : descriptor);
      },
      ownKeys: (target) => {
        this.#check();
        return Reflect.ownKeys(target);
      },
      getOwnPropertyDescriptor: (target, name) => {
        this.#check();
        const own = Reflect.getOwnPropertyDescriptor(target, name);
        return own !== undefined && own.configurable === true && 'value' in own ? { ...own, value: this.lend(own.value) } : own;
      },
    };
  }

  #writable(target: object): void {
    if (Object.isFrozen(target))
      throw new TypeError(`A value of the state of '${this.#uid}' cannot be changed any more: it was emitted. Emit a copy of what stays in state.`);
  }

  #check(): void {
    if (!this.#over) return;
    throw new MillraceError(
      'STATE_USED_AFTER_CALLBACK',
      `A value of the state of '${this.#uid}' was used after the callback that it was handed to had ended.`,
      {
        uid: this.#uid,
        todo: 'Keep a copy of it, or get it anew in each callback.',
      },
    );
  }
}

function isIterator(value: unknown): value is IterableIterator<unknown> {
  return typeof value === 'object' && value !== null && typeof (value as { next?: unknown }).next === 'function' && Symbol.iterator in value;
}
