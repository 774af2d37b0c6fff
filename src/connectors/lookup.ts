// Lookups for `asyncMap`: what a key stands for somewhere outside, remembered for a while, asked for once at a time.
//
// Invariants:
//  L1  A key that is being asked for is not asked for again: whoever wants it waits for the same answer. Keys wanted in one turn of the event loop are asked for together.
//  L2  The cache holds at most `size` keys, the least recently wanted go first. An answer is kept for `ttl`, that there is none for `missingTtl`. A failure is not kept.
//  L3  Answers are shared: whoever gets one must not change it.

/** What a lookup remembers. */
export interface LookupCache {
  /** Keys; 10,000 by default, 0 for none. */
  size?: number;
  /** How long an answer holds, ms; a minute by default. */
  ttl?: number;
  /** How long it holds that there is no answer, ms; 10 s by default, 0: it is asked each time. */
  missingTtl?: number;
}

/** Answers for keys: made by `postgres.lookup()`, `redis.lookup()` or `lookup()`, for use within `asyncMap`. */
export interface Lookup<K extends string | number, R> {
  /** What the key stands for; undefined: nothing. Rejects where it could not be asked. Do not change what you get: it is shared. */
  get(key: K): Promise<R | undefined>;
  /** Forgets one key, or all. */
  forget(key?: K): void;
  /** How often `get` was answered from memory, and how often not. */
  readonly hits: number;
  readonly misses: number;
  /** Ends its connection, which otherwise holds no process up. */
  close(): Promise<void>;
}

/** How answers are got, and for how long they hold. */
export interface LookupOptions<K extends string | number, R> {
  /** The answers of many keys, by the key's text; a key without an answer is missing, an Error is that key's alone. */
  load(keys: readonly K[]): Promise<ReadonlyMap<string, R | Error>>;
  cache?: LookupCache | undefined;
  close?(): Promise<void>;
  /** Milliseconds of a clock that does not go back. */
  now?(): number;
}

/** One connection for all lookups, made when it is first needed and again after it was lost; it holds no process up. */
export class LookupConnection<C extends { unref(): void; close(): Promise<void> | void }> {
  readonly #connect: () => Promise<C>;
  readonly #isLost: (connection: C) => boolean;
  #connecting: Promise<C> | undefined;

  constructor(connect: () => Promise<C>, isLost: (connection: C) => boolean) {
    this.#connect = connect;
    this.#isLost = isLost;
  }

  async current(): Promise<C> {
    for (;;) {
      this.#connecting ??= this.#connect().then((connection) => {
        connection.unref();
        return connection;
      });
      const connecting = this.#connecting;
      try {
        const connection = await connecting;
        if (!this.#isLost(connection)) return connection;
        this.#forget(connecting);
      } catch (error) {
        this.#forget(connecting);
        throw error;
      }
    }
  }

  async close(): Promise<void> {
    const open = this.#connecting;
    this.#connecting = undefined;
    if (open !== undefined) await (await open).close();
  }

  /** Unless another caller has begun anew already. */
  #forget(connecting: Promise<C>): void {
    if (this.#connecting === connecting) this.#connecting = undefined;
  }
}

interface Answer<R> {
  readonly value: R | undefined;
  readonly until: number;
}

interface Asked<K, R> {
  readonly key: K;
  readonly answer: Promise<R | undefined>;
  readonly resolve: (value: R | undefined) => void;
  readonly reject: (error: unknown) => void;
}

const SIZE = 10_000;
const TTL_MS = 60_000;
const MISSING_TTL_MS = 10_000;
/** Keys of one call to `load`. */
const AT_ONCE = 500;

export function lookupOf<K extends string | number, R>(options: LookupOptions<K, R>): Lookup<K, R> {
  return new CachedLookup(options);
}

class CachedLookup<K extends string | number, R> implements Lookup<K, R> {
  readonly #options: LookupOptions<K, R>;
  readonly #size: number;
  readonly #ttl: number;
  readonly #missingTtl: number;
  readonly #now: () => number;
  /** In the order in which they were wanted last. */
  readonly #answers = new Map<K, Answer<R>>();
  readonly #open = new Map<K, Promise<R | undefined>>();
  #asked: Asked<K, R>[] = [];
  hits = 0;
  misses = 0;

  constructor(options: LookupOptions<K, R>) {
    const { size = SIZE, ttl = TTL_MS, missingTtl = MISSING_TTL_MS } = options.cache ?? {};
    this.#options = options;
    this.#size = size;
    this.#ttl = ttl;
    this.#missingTtl = missingTtl;
    this.#now = options.now ?? (() => performance.now());
  }

  get(key: K): Promise<R | undefined> {
    const known = this.#answers.get(key);
    if (known !== undefined) {
      this.#answers.delete(key);
      if (known.until > this.#now()) {
        this.#answers.set(key, known);
        this.hits += 1;
        return Promise.resolve(known.value);
      }
    }
    const open = this.#open.get(key);
    if (open !== undefined) {
      this.hits += 1;
      return open;
    }
    this.misses += 1;
    return this.#ask(key);
  }

  #ask(key: K): Promise<R | undefined> {
    let resolve!: (value: R | undefined) => void;
    let reject!: (error: unknown) => void;
    const answer = new Promise<R | undefined>((done, failed) => {
      resolve = done;
      reject = failed;
    });
    this.#open.set(key, answer);
    this.#asked.push({ key, answer, resolve, reject });
    if (this.#asked.length === 1) setImmediate(() => void this.#send());
    return answer;
  }

  async #send(): Promise<void> {
    const asked = this.#asked;
    this.#asked = [];
    for (let from = 0; from < asked.length; from += AT_ONCE) {
      const part = asked.slice(from, from + AT_ONCE);
      try {
        const answers = await this.#options.load(part.map(({ key }) => key));
        for (const each of part) {
          const value = answers.get(String(each.key));
          const current = this.#settled(each);
          if (value instanceof Error) each.reject(value);
          else {
            if (current) this.#keep(each.key, value);
            each.resolve(value);
          }
        }
      } catch (error) {
        for (const each of part) {
          this.#settled(each);
          each.reject(error);
        }
      }
    }
  }

  /** False where the key was forgotten meanwhile: the answer may be an old one. */
  #settled({ key, answer }: Asked<K, R>): boolean {
    return this.#open.get(key) === answer && this.#open.delete(key);
  }

  #keep(key: K, value: R | undefined): void {
    const ttl = value === undefined ? this.#missingTtl : this.#ttl;
    if (ttl > 0 && this.#size > 0) {
      this.#answers.delete(key);
      this.#answers.set(key, { value, until: this.#now() + ttl });
      if (this.#answers.size > this.#size) this.#answers.delete(this.#answers.keys().next().value as K);
    }
  }

  forget(key?: K): void {
    if (key === undefined) {
      this.#answers.clear();
      this.#open.clear();
    } else {
      this.#answers.delete(key);
      this.#open.delete(key);
    }
  }

  async close(): Promise<void> {
    await this.#options.close?.();
  }
}
