// The checkpoint registry in ZooKeeper (the contract is in checkpoint/registry.ts; where it lies, in paths.ts).
//
// Invariants, beside those of the contract:
//  R1  Everything is written by `multi(check epoch, …)`: a deposed leader writes nothing, however late it learns that it is one (LEADER_DEPOSED).
//  R2  What is written carries a random id. Where the connection is lost in a write, what became of it is read behind `settle()`: with our id in the node it was done, else
//      it was not, and it is done then. Nobody else writes (R1), so there is no third case. Where not even that can be found out, the error says `unknown`: nothing may be
//      deleted, announced or restored from it (protocols 17). While the term lasts nobody else can do better, so servers that are away are waited for: what fails here
//      would fail the job for what passes by itself.
//  R3  NODE_EXISTS with our own random id in the node is success.
//  R4  Small values that change together are one node, `state`: a start changes five of them at once.
//  R5  One call at a time.
//  R6  What a leader deletes follows from `checkpoints()`: that is read behind a write of this term, so that whatever was registered before the term is in it, and a deposed
//      leader gets no list at all.

import { below, nameIn } from '../../checkpoint/addresses.ts';
import { type Outcome, type Pointer, RESERVED, type Registered, type Registry } from '../../checkpoint/registry.ts';
import type { JobResult } from '../../graph/job.ts';
import type { Io } from '../../runtime/io.ts';
import type { Client, Operation } from './client.ts';
import { deposed, type Term } from './election.ts';
import { isPassing, refusalOf, ZooKeeperError } from './errors.ts';
import { folderOf } from './follow.ts';
import { nodeName, registryOf } from './paths.ts';

interface State {
  readonly attempt?: number;
  /** By region. */
  readonly begun?: Readonly<Record<string, number>>;
  readonly lineage?: string;
  readonly since?: number;
  readonly outcome?: Outcome;
  readonly result?: JobResult;
  readonly origin?: string;
  readonly claimed?: { readonly folder: string; readonly lineage: string };
}

export interface ZooKeeperRegistryOptions {
  readonly client: Client;
  /** Whose epoch is checked. */
  readonly term: Pick<Term, 'check' | 'epoch'> & Partial<Pick<Term, 'isLeader'>>;
  readonly job: string;
  /** The folder of metadata on this machine; as it was registered by default. */
  readonly checkpoints?: string;
  readonly io: Pick<Io, 'step'>;
  /** Behind each `begin`, and before anything else is done with it. */
  readonly begun?: (() => Promise<void>) | undefined;
}

export class ZooKeeperRegistry implements Registry {
  readonly #options: ZooKeeperRegistryOptions;
  readonly #paths: ReturnType<typeof registryOf>;
  #reserved = 0;
  #since: number | undefined;
  #last: Promise<unknown> = Promise.resolve();

  private constructor(options: ZooKeeperRegistryOptions) {
    this.#options = options;
    this.#paths = registryOf(nodeName(options.job));
  }

  /** What is read from then on is behind the beginning of the term (election.ts, L2). */
  static async open(options: ZooKeeperRegistryOptions): Promise<ZooKeeperRegistry> {
    const registry = new ZooKeeperRegistry(options);
    const { state, counter, checkpoints } = registry.#paths;
    for (const path of [state, counter, checkpoints]) await registry.#patiently(() => options.client.make(path));
    return registry;
  }

  async nextAttempt(after = 0, regions: readonly number[] = []): Promise<number> {
    const changed = await this.#change((state) => {
      const attempt = Math.max(state.attempt ?? 0, after) + 1;
      return { ...state, attempt, begun: { ...state.begun, ...Object.fromEntries(regions.map((region) => [region, attempt])) } };
    });
    return changed.attempt!;
  }
  async begunIn(): Promise<ReadonlyMap<number, number>> {
    return new Map(Object.entries((await this.#state()).begun ?? {}).map(([region, attempt]) => [Number(region), attempt]));
  }
  async attempt(): Promise<number | undefined> {
    return (await this.#state()).attempt;
  }
  async lineage(): Promise<string | undefined> {
    return (await this.#state()).lineage;
  }
  async setLineage(lineage: string): Promise<void> {
    await this.#change((state) => ({ ...state, lineage }));
  }

  counter(): Promise<number> {
    return this.#turn(async () => (await this.#read<number>(this.#paths.counter)).value ?? 0);
  }
  async reserve(id: number): Promise<void> {
    if (id <= this.#reserved) return;
    await this.#options.io.step('checkpoint.reserve');
    const counter = id + RESERVED - 1;
    const since = this.#since ?? id - 1;
    // Ids are used up first, and said to be the lineage's second: a crash in between uses up some.
    await this.#turn(() => this.#write<number>(this.#paths.counter, () => counter));
    if (this.#since === undefined) await this.#change((state) => ({ ...state, since }));
    this.#since = since;
    this.#reserved = counter;
  }
  async raise(id: number): Promise<void> {
    if (id > (await this.counter())) await this.#turn(() => this.#write<number>(this.#paths.counter, (now = 0) => Math.max(now, id)));
  }
  get since(): number | undefined {
    return this.#since;
  }

  /** R3. */
  async add(checkpoint: Pointer, lineage: string): Promise<void> {
    const path = this.#pathOf(checkpoint.id);
    const registered: Registered = { ...checkpoint, lineage };
    await this.#turn(async () => {
      const stamp = crypto.randomUUID();
      // The epoch is for whoever looks at it from outside.
      const create: Operation = { kind: 'create', path, value: bytesOf({ stamp, epoch: this.#options.term.epoch, value: registered }) };
      await this.#done(
        () => [create],
        async (reason) => {
          const found = await this.#read<Registered>(path);
          if (found.stamp === stamp) return true;
          if (reason === 'node-exists' && found.there) throw new ZooKeeperError('ZOOKEEPER_REFUSED', `Checkpoint ${checkpoint.id} is registered already.`);
          return false;
        },
      );
    });
  }
  async remove(id: number): Promise<void> {
    const path = this.#pathOf(id);
    await this.#turn(() =>
      this.#done(
        () => [{ kind: 'remove', path, version: -1 }],
        async () => !(await this.#read(path)).there,
      ),
    );
  }
  checkpoints(): Promise<Registered[]> {
    return this.#turn(async () => {
      const { checkpoints: folder } = this.#options;
      // R6.
      await this.#done(
        () => [],
        async () => false,
      );
      const nodes = await this.#patiently(() => folderOf(this.#options.client, this.#paths.checkpoints));
      return [...nodes.values()].map((bytes) => {
        const { value } = JSON.parse(bytes.toString()) as { value: Registered };
        return folder === undefined ? value : { ...value, path: below(folder, nameIn(value.path)) };
      });
    });
  }

  async outcome(): Promise<Outcome | undefined> {
    return (await this.#state()).outcome;
  }
  async setOutcome(outcome: Outcome): Promise<void> {
    await this.#change((state) => ({ ...state, outcome }));
  }
  async result(): Promise<JobResult | undefined> {
    return (await this.#state()).result;
  }
  async finish(result: JobResult): Promise<void> {
    await this.#options.io.step('job.finish');
    await this.#change((state) => ({ ...state, outcome: 'finished', result }));
  }

  async begin(lineage: string, origin: string | undefined, claimed?: string): Promise<void> {
    const changed = await this.#change(({ lineage: was, since, origin: _origin, result: _result, ...state }) => ({
      ...state,
      lineage,
      outcome: 'running',
      ...(was === lineage && since !== undefined ? { since } : {}),
      ...(origin === undefined ? {} : { origin }),
      ...(claimed === undefined ? {} : { claimed: { folder: claimed, lineage } }),
    }));
    this.#since = changed.since;
    await this.#options.begun?.();
  }
  async origin(): Promise<string | undefined> {
    return (await this.#state()).origin;
  }
  async claimed(): Promise<{ readonly folder: string; readonly lineage: string } | undefined> {
    return (await this.#state()).claimed;
  }
  async unclaim(): Promise<void> {
    await this.#change(({ claimed: _claimed, ...state }) => state);
  }

  async close(): Promise<void> {
    await this.#last;
  }

  // ── nodes ──

  #pathOf(id: number): string {
    return `${this.#paths.checkpoints}/${String(id).padStart(19, '0')}`;
  }

  #state(): Promise<State> {
    return this.#turn(async () => (await this.#read<State>(this.#paths.state)).value ?? {});
  }
  #change(change: (state: State) => State): Promise<State> {
    return this.#turn(() => this.#write<State>(this.#paths.state, (state = {}) => change(state)));
  }

  async #read<T>(path: string): Promise<{ readonly there: boolean; readonly stamp?: string; readonly value?: T; readonly version: number }> {
    const found = await this.#patiently(() => this.#options.client.get(path));
    if (found === undefined) return { there: false, version: -1 };
    const { version } = found.stat;
    // As it was made.
    if (found.value.length === 0) return { there: true, version };
    return { there: true, version, ...(JSON.parse(found.value.toString()) as { stamp: string; value: T }) };
  }

  async #write<T>(path: string, change: (value: T | undefined) => T): Promise<T> {
    const stamp = crypto.randomUUID();
    let written: T | undefined;
    await this.#done(
      async () => {
        const { value, version } = await this.#read<T>(path);
        written = change(value);
        return [{ kind: 'set', path, value: bytesOf({ stamp, value: written }), version }];
      },
      async () => (await this.#read<T>(path)).stamp === stamp,
    );
    return written!;
  }

  /** R1, R2: until it is done, or cannot be. `was` looks whether it was done by an earlier try. */
  async #done(operations: () => readonly Operation[] | Promise<readonly Operation[]>, was: (reason: string | undefined) => Promise<boolean>): Promise<void> {
    const { client, term } = this.#options;
    let doubt: ZooKeeperError | undefined;
    for (;;) {
      try {
        const all = [term.check, ...(await operations())];
        // Nobody may have been elected yet: the lease alone says that somebody can be (protocols 18).
        if (term.isLeader?.() === false) throw deposed(term.epoch);
        await client.multi(all);
        return;
      } catch (error) {
        if (!(error instanceof ZooKeeperError)) throw error;
        if (error.operation === 0 && refusalOf(error) !== undefined) {
          // Ours may have been done before another was elected.
          if (doubt !== undefined && (await was(undefined))) return;
          throw deposed(term.epoch, error);
        }
        if (error.unknown) doubt = error;
        else if (error.reason === undefined) {
          if (this.#waits(error)) continue;
          throw doubt ?? error;
        }
        try {
          if (error.unknown) await this.#patiently(() => client.settle());
          if (await was(error.reason)) return;
        } catch (next) {
          throw error.unknown ? new ZooKeeperError('ZOOKEEPER_CONNECTION_LOST', error.sentence, { unknown: true, cause: next }) : next;
        }
      }
    }
  }

  /** R2. No term by which it could be told when to have enough: no patience. */
  #waits(error: unknown): boolean {
    return isPassing(error) && this.#options.term.isLeader?.() === true;
  }

  /** What may be asked twice. */
  async #patiently<R>(ask: () => Promise<R>): Promise<R> {
    for (;;) {
      try {
        return await ask();
      } catch (error) {
        if (!this.#waits(error)) throw error;
      }
    }
  }

  /** R5. */
  #turn<R>(work: () => Promise<R>): Promise<R> {
    const turn = this.#last.then(work);
    this.#last = turn.catch(() => undefined);
    return turn;
  }
}

function bytesOf(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}
