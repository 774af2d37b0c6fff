// Which jobs the cluster should run, and how those ended that are over.
//
// Invariants:
//  J1  Any replica may submit a job or say when it is to end; the leader alone takes one from the store, together with its result, in one transaction that checks its
//      epoch: so no job is both wanted and over, and a deposed leader ends nothing. A later run of the same name stays.
//  J2  A change names the version that it was made from; of two at once one is refused, reads again and decides again. So does one whose answer was lost and that is not
//      found: each says how a job should be, and says the same when it is said twice.
//  J4  A submission has an id, `run`, of its own, which its end carries: so whoever waits for one is not told the end of an older or later one. That it has begun is noted
//      behind the beginning of its lineage in the registry, and before its first task opens: from then on it goes on from its newest checkpoint, whatever it was to be
//      restored from.
//  J3  What is stored says how to run a job, and never what it is: programs travel as modules of the replicas.
//  J5  `plan` is the plan that is in force: of whoever ran the job last, or is to run it next. Replicas with another one stand by (versions.ts).

import type { LossRow } from '../../execution/losses.ts';
import type { JobResult } from '../../graph/job.ts';
import type { Client, Operation } from './client.ts';
import { deposed, type Term } from './election.ts';
import { refusalOf, ZooKeeperError } from './errors.ts';
import { folderOf, followed, followedFolder } from './follow.ts';
import { JOBS, nodeName, RESULTS } from './paths.ts';

/** How long a job should run: until it ends by itself, or it was told to end. */
export type Until = { readonly kind: 'end' } | { readonly kind: 'stop'; readonly drain: boolean; readonly savepoint?: string } | { readonly kind: 'cancel' };

export interface WantedJob {
  readonly name: string;
  /** J4. */
  readonly run?: string;
  readonly begun?: boolean;
  /** J5. */
  readonly plan?: string;
  /** Plans of members in the order in which leaders have seen them, and those that were in force and could not start. */
  readonly versions?: readonly string[];
  readonly rejected?: readonly string[];
  /** Worker processes that were lost in a row, as the leader of that id has counted. */
  readonly losses?: LossRow & { readonly by: string };
  /** Plain data: parallelism, checkpoints, restarts … */
  readonly options: Readonly<Record<string, unknown>>;
  readonly until: Until;
}

/** Of a job that failed: what a user is told. */
export interface Failure {
  readonly code: string;
  readonly message: string;
  readonly uid?: string;
  readonly todo?: string;
  readonly retryable?: boolean;
  readonly cause?: Failure;
}

export type JobEnd = { readonly job: string; readonly at: number; readonly run?: string } & ({ readonly result: JobResult } | { readonly failure: Failure });

/** Of one job; `run`: of that run alone. */
interface Change {
  readonly name: string;
  readonly run: string | undefined;
  readonly change: (job: WantedJob) => WantedJob;
}

const VERSIONS_KEPT = 50;

export class JobStore {
  readonly #client: Client;

  constructor(client: Client) {
    this.#client = client;
  }

  /** False where a job of that name is there already, which stays as it is. */
  async submit(job: WantedJob): Promise<boolean> {
    const client = this.#client;
    await client.make(JOBS);
    const nonce = crypto.randomUUID();
    for (let doubt = false; ; doubt = true) {
      try {
        await client.create(pathOf(job.name), bytesOf({ ...job, nonce }));
        return true;
      } catch (error) {
        if (refusalOf(error) === 'node-exists' && !doubt) return false;
        if (refusalOf(error) !== 'node-exists' && !isUnknown(error)) throw error;
      }
      // Ours may have been changed since, by whoever leads.
      const found = await this.#settled(job.name);
      if (found !== undefined) return found.nonce === nonce || (job.run !== undefined && found.run === job.run);
      // Or be over.
      if (job.run !== undefined && (await this.end(job.name))?.run === job.run) return true;
    }
  }

  /** Says until when a job is to run; false where there is no such job, or where it is another run than that one. */
  until(name: string, until: Until, run?: string): Promise<boolean> {
    return this.#change([{ name, run, change: (job) => ({ ...job, until }) }], []);
  }

  /** J4, J5. @throws LEADER_DEPOSED */
  begun(term: Pick<Term, 'check' | 'epoch'>, name: string, run: string | undefined, plan: string): Promise<boolean> {
    return this.#led(term, name, run, (job) => ({ ...job, begun: true, plan }));
  }

  /** Plans that were not seen before. @throws LEADER_DEPOSED */
  seen(term: Pick<Term, 'check' | 'epoch'>, name: string, run: string | undefined, plans: readonly string[]): Promise<boolean> {
    return this.#led(term, name, run, (job) => ({ ...job, versions: [...new Set([...(job.versions ?? []), ...plans])].slice(-VERSIONS_KEPT) }));
  }

  /** The plan in force could not start, and another one is instead. @throws LEADER_DEPOSED */
  rejected(term: Pick<Term, 'check' | 'epoch'>, name: string, run: string | undefined, plan: string, instead: string): Promise<boolean> {
    return this.#led(term, name, run, (job) => ({ ...job, plan: instead, rejected: [...new Set([...(job.rejected ?? []), plan])].slice(-VERSIONS_KEPT) }));
  }

  /** J5: of all of these jobs, or of none. @throws LEADER_DEPOSED */
  planned(
    term: Pick<Term, 'check' | 'epoch'>,
    plans: readonly { readonly name: string; readonly run: string | undefined; readonly plan: string }[],
  ): Promise<boolean> {
    return this.#ledAll(
      term,
      plans.map(({ name, run, plan }) => ({ name, run, change: (job) => ({ ...job, plan }) })),
    );
  }

  /** Other options, by the leader. @throws LEADER_DEPOSED */
  noted(term: Pick<Term, 'check' | 'epoch'>, name: string, run: string | undefined, options: WantedJob['options']): Promise<boolean> {
    return this.#led(term, name, run, (job) => ({ ...job, options }));
  }

  /** Worker processes that it has lost in a row. @throws LEADER_DEPOSED */
  lost(term: Pick<Term, 'check' | 'epoch'>, name: string, run: string | undefined, losses: WantedJob['losses'] & object): Promise<boolean> {
    return this.#led(term, name, run, (job) => ({ ...job, losses }));
  }

  #led(term: Pick<Term, 'check' | 'epoch'>, name: string, run: string | undefined, change: Change['change']): Promise<boolean> {
    return this.#ledAll(term, [{ name, run, change }]);
  }

  #ledAll(term: Pick<Term, 'check' | 'epoch'>, changes: readonly Change[]): Promise<boolean> {
    return this.#change(changes, [term.check]).catch((error) => {
      throw error instanceof ZooKeeperError && error.operation === 0 && error.reason === 'bad-version' ? deposed(term.epoch, error) : error;
    });
  }

  /** All in one transaction; jobs that are not there, or are other runs, are left out. False: all of them are. */
  async #change(changes: readonly Change[], checks: readonly Operation[]): Promise<boolean> {
    const client = this.#client;
    for (;;) {
      const found = await Promise.all(changes.map(async (each) => ({ ...each, node: await client.get(pathOf(each.name)) })));
      const there = found.flatMap(({ name, run, change, node }) => {
        if (node === undefined) return [];
        const job = jobIn(node.value);
        return run !== undefined && job.run !== run ? [] : [{ path: pathOf(name), version: node.stat.version, job: change(job) }];
      });
      const [first] = there;
      if (first === undefined) return false;
      const nonce = crypto.randomUUID();
      const sets = there.map(({ path, version, job }) => ({ kind: 'set' as const, path, value: bytesOf({ ...job, nonce }), version }));
      try {
        await client.multi([...checks, ...sets]);
        return true;
      } catch (error) {
        // Of a check that fails the caller is told.
        const checked = error instanceof ZooKeeperError && error.operation === 0 && checks.length > 0;
        const refusal = checked ? undefined : refusalOf(error);
        if (refusal !== 'bad-version' && refusal !== 'no-node' && !isUnknown(error)) throw error;
        // J2.
        if (isUnknown(error) && (await this.#settled(first.job.name))?.nonce === nonce) return true;
      }
    }
  }

  /** A job, and how the last run of its name ended: each time one of the two changes. Whoever sees it gone sees its end. */
  async *followedEnd(name: string, signal: AbortSignal): AsyncGenerator<{ readonly wanted: WantedJob | undefined; readonly end: JobEnd | undefined }, void> {
    const client = this.#client;
    const read = async (wake: () => void) => {
      // Answers come in this order, and the two change in one transaction.
      const [job, end] = await Promise.all([client.get(pathOf(name), wake), client.get(resultOf(name), wake)]);
      return {
        wanted: job === undefined ? undefined : jobIn(job.value),
        end: end === undefined ? undefined : (JSON.parse(end.value.toString()) as JobEnd),
      };
    };
    for await (const found of followed(client, read, signal)) yield found;
  }

  async jobs(): Promise<WantedJob[]> {
    return jobsIn(await folderOf(this.#client, JOBS));
  }

  /** All of them, each time one comes, goes or changes. */
  async *followed(signal: AbortSignal): AsyncGenerator<readonly WantedJob[], void> {
    for await (const nodes of followedFolder(this.#client, JOBS, signal)) yield jobsIn(nodes);
  }

  /** J1. @throws LEADER_DEPOSED */
  async ended(term: Term, end: JobEnd): Promise<void> {
    const client = this.#client;
    await client.make(RESULTS);
    for (;;) {
      const [found, before] = await Promise.all([client.get(pathOf(end.job)), client.get(resultOf(end.job))]);
      // J4: where our answer was lost somebody may have submitted it anew.
      const job = found === undefined || jobIn(found.value).run !== end.run ? undefined : found;
      const value = Buffer.from(JSON.stringify(end));
      if (job === undefined && before !== undefined && before.value.equals(value)) return;
      try {
        await client.multi([
          term.check,
          ...(job === undefined ? [] : [{ kind: 'remove' as const, path: pathOf(end.job), version: job.stat.version }]),
          before === undefined
            ? { kind: 'create', path: resultOf(end.job), value }
            : { kind: 'set', path: resultOf(end.job), value, version: before.stat.version },
        ]);
        return;
      } catch (error) {
        if (!(error instanceof ZooKeeperError)) throw error;
        if (error.operation === 0 && error.reason === 'bad-version') throw deposed(term.epoch, error);
        // Changed in between, or not known: what is there now says.
        if (error.unknown) await client.settle();
        else if (error.reason === undefined) throw error;
      }
    }
  }

  /** Of the last run of that name; undefined: none is over. */
  async end(name: string): Promise<JobEnd | undefined> {
    const found = await this.#client.get(resultOf(name));
    return found === undefined ? undefined : (JSON.parse(found.value.toString()) as JobEnd);
  }

  /** What is there behind whatever was asked before. */
  async #settled(name: string): Promise<{ readonly nonce?: string; readonly run?: string } | undefined> {
    await this.#client.settle();
    const found = await this.#client.get(pathOf(name));
    return found === undefined ? undefined : (JSON.parse(found.value.toString()) as { nonce?: string; run?: string });
  }
}

function isUnknown(error: unknown): boolean {
  return error instanceof ZooKeeperError && error.unknown;
}

function pathOf(name: string): string {
  return `${JOBS}/${nodeName(name)}`;
}
function resultOf(name: string): string {
  return `${RESULTS}/${nodeName(name)}`;
}
function bytesOf(value: WantedJob & { nonce: string }): Buffer {
  return Buffer.from(JSON.stringify(value));
}
function jobIn(value: Buffer): WantedJob {
  const { name, options, until, run, begun, plan, versions, rejected, losses } = JSON.parse(value.toString()) as WantedJob;
  return {
    name,
    options,
    until,
    ...(run === undefined ? {} : { run }),
    ...(begun === undefined ? {} : { begun }),
    ...(plan === undefined ? {} : { plan }),
    ...(versions === undefined ? {} : { versions }),
    ...(rejected === undefined ? {} : { rejected }),
    ...(losses === undefined ? {} : { losses }),
  };
}
function jobsIn(nodes: ReadonlyMap<string, Buffer>): WantedJob[] {
  return [...nodes.values()].map(jobIn);
}
