// Connections to the brokers of a cluster: opened when they are needed, one for each broker and purpose, shared, given up together.
//
// What: `ask` sends a request to a broker and gives its answer, or throws a KafkaError within the time of one request. Trying again is for those who know what
// it means (cluster.ts, delivery.ts, transactions.ts). Fetches wait at the broker and hold back what comes behind them (link L1), so they have links of their own; so
// have batches of records, which are large.
//
// Invariants:
//  N1  a request that is not answered in time closes its link: the answers behind it would come as late.
//  N2  after `close` there is no socket and no timer, and whatever was under way throws KAFKA_CLOSED.
//  N3  addresses come from the newest metadata, and the ones that the user gave stay for when none of them answers.

import { setMaxListeners } from 'node:events';
import { MillraceError } from '../../errors.ts';
import type { ClientSettings } from './client.ts';
import { closed, KafkaError, unreachable } from './errors.ts';
import type { Address, Dial, Link } from './link.ts';
import type { Call } from './requests.ts';

export type Purpose = 'fetch' | 'produce' | 'talk';

/** Of `ask`: a broker by its number, or whichever answers. */
export type Whom = number | 'any';

const LONGEST_REQUEST_MS = 30_000;
const SHORTEST_REQUEST_MS = 1000;
const LONGEST_CONNECT_MS = 10_000;

export class Brokers {
  /** How long one request may take, beyond what the broker was asked to wait. */
  readonly requestMs: number;
  readonly #dial: Dial;
  readonly #settings: ClientSettings;
  readonly #given: readonly Address[];
  readonly #links = new Map<string, Promise<Link>>();
  readonly #open = new Set<Link>();
  readonly #closing = new AbortController();
  #known = new Map<number, Address>();
  #turn = 0;

  constructor(dial: Dial, settings: ClientSettings) {
    this.#dial = dial;
    // Every pause before another try listens.
    setMaxListeners(0, this.#closing.signal);
    this.#settings = settings;
    this.#given = settings.brokers.map(addressOf);
    if (this.#given.length === 0)
      throw new MillraceError('OPTION_INVALID', 'Kafka needs brokers.', { todo: "Give at least one, such as brokers: ['localhost:9092']." });
    // Within the time of a call another broker is to be asked when the first does not answer.
    this.requestMs = Math.min(LONGEST_REQUEST_MS, Math.max(SHORTEST_REQUEST_MS, Math.floor(settings.timeoutMs / 3)));
  }

  get closed(): boolean {
    return this.#closing.signal.aborted;
  }

  /** Aborted by `close`. */
  get signal(): AbortSignal {
    return this.#closing.signal;
  }

  /** Every node of the cluster, from metadata. */
  learn(brokers: readonly { readonly node: number; readonly host: string; readonly port: number }[]): void {
    if (brokers.length > 0) this.#known = new Map(brokers.map(({ node, host, port }) => [node, { host, port }]));
  }

  knows(node: number): boolean {
    return this.#known.has(node);
  }

  /** The numbers of all that are known. */
  get nodes(): number[] {
    return [...this.#known.keys()];
  }

  /** `waitMs`: how long the broker was asked to wait itself. */
  async ask<T>(whom: Whom, purpose: Purpose, call: Call<T>, waitMs = 0): Promise<T> {
    const link = whom === 'any' ? await this.#any() : await this.#link(this.#addressOf(whom), purpose);
    const answer = await this.#inTime(link, link.request(call), this.requestMs + waitMs, call.name);
    try {
      return call.read(answer);
    } catch (error) {
      throw new KafkaError('KAFKA_CORRUPT', `The answer to ${call.name} cannot be read.`, { cause: error, again: 'later' });
    }
  }

  close(): void {
    if (this.closed) return;
    this.#closing.abort();
    for (const link of this.#open) link.close();
    this.#open.clear();
    this.#links.clear();
  }

  #addressOf(node: number): Address {
    const address = this.#known.get(node);
    if (address === undefined) throw unreachable(`There is no broker ${node} in the cluster at present.`, undefined);
    return address;
  }

  /** One that answers: those from metadata in turn, then those that were given. */
  async #any(): Promise<Link> {
    for (const address of this.#known.values()) {
      const link = this.#links.get(keyOf(address, 'talk'));
      const open = link === undefined ? undefined : await link.catch(() => undefined);
      if (open?.open === true) return open;
    }
    const known = [...this.#known.values()];
    const all = new Map([...known, ...this.#given].map((address) => [keyOf(address, 'talk'), address]));
    const addresses = [...all.values()];
    this.#turn++;
    let last: unknown;
    for (let index = 0; index < addresses.length; index++) {
      try {
        return await this.#link(addresses[(this.#turn + index) % addresses.length]!, 'talk');
      } catch (error) {
        // The same at every broker, or too often tried: a wrong password locks some accounts.
        if (!(error instanceof KafkaError) || error.again === undefined) throw error;
        last = error;
      }
    }
    throw last;
  }

  #link(address: Address, purpose: Purpose): Promise<Link> {
    if (this.closed) return Promise.reject(closed());
    const key = keyOf(address, purpose);
    const known = this.#links.get(key);
    if (known !== undefined) {
      return known.then((link) => {
        if (link.open) return link;
        if (this.#links.get(key) === known) this.#forget(key, link);
        return this.#link(address, purpose);
      });
    }
    const dialled = this.#connect(address);
    this.#links.set(key, dialled);
    dialled.catch(() => {
      if (this.#links.get(key) === dialled) this.#links.delete(key);
    });
    return dialled;
  }

  #forget(key: string, link: Link): void {
    this.#links.delete(key);
    this.#open.delete(link);
  }

  async #connect(address: Address): Promise<Link> {
    const timeoutMs = Math.min(LONGEST_CONNECT_MS, this.requestMs);
    const giveUp = new AbortController();
    const stop = (): void => giveUp.abort();
    this.signal.addEventListener('abort', stop);
    const timer = setTimeout(stop, timeoutMs);
    try {
      const link = await this.#dial({ address, settings: this.#settings, timeoutMs, signal: giveUp.signal });
      if (this.closed) {
        link.close();
        throw closed();
      }
      this.#open.add(link);
      return link;
    } catch (error) {
      if (this.closed) throw closed();
      if (giveUp.signal.aborted) throw unreachable(`No connection to ${address.host}:${address.port} came about within ${timeoutMs} ms.`, error);
      throw error;
    } finally {
      clearTimeout(timer);
      this.signal.removeEventListener('abort', stop);
    }
  }

  /** N1. */
  #inTime(link: Link, answer: Promise<Buffer>, timeoutMs: number, name: string): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        reject(unreachable(`A broker did not answer ${name} within ${timeoutMs} ms.`, undefined));
        link.close();
      }, timeoutMs);
      answer.then(
        (bytes) => {
          clearTimeout(timer);
          resolve(bytes);
        },
        (error) => {
          clearTimeout(timer);
          reject(this.closed ? closed() : error);
        },
      );
    });
  }
}

function keyOf({ host, port }: Address, purpose: Purpose): string {
  return `${purpose} ${host}:${port}`;
}

/** `host:port`, `[::1]:port`. */
function addressOf(broker: string): Address {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(typeof broker === 'string' ? broker.trim() : '');
  const port = Number(match?.[3]);
  if (match === null || port < 1 || port > 65_535) {
    throw new MillraceError('OPTION_INVALID', `'${String(broker)}' is no address of a broker.`, { todo: 'Write host:port, such as localhost:9092.' });
  }
  return { host: (match[1] ?? match[2])!, port };
}
