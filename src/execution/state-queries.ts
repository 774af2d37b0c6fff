// Questions from outside about the state of a job that runs: one key, all keys of a state, lists and broadcast maps of instances, how large states are.
//
// What: each question goes to the tasks that own the key groups, or to all instances, in this thread or in another host, which answer with rows between two of their turns
// (state-questions.ts); views are made of them here. A task that goes down meanwhile is asked again in its next attempt.
//
// Invariants:
//  Q1  A question holds no record back for longer than one key, or SCAN_KEYS keys of a scan, take to be copied.
//  Q2  It changes nothing: neither state, nor what is in the next checkpoint, nor what stays in memory.
//  Q3  Every question is answered or refused: where the job ends first, with JOB_ENDED.

import { canonicalKey, encode, groupOf, hashKey, instanceOf, keyBytes, type Key as StateKey, sameKey, type TableFigures } from '../../state-backends/index.ts';
import { codeOf, MillraceError, messageOf } from '../errors.ts';
import type { Key, MetricSample } from '../graph/job.ts';
import { isKeyed, type Node, nameOf } from '../graph/node.ts';
import { type HotKey, hottest, type WeighedKeys } from '../runtime/hot-keys.ts';
import type { Queryable, QueryableState, UnkeyedState } from '../runtime/queryable.ts';
import { itemOf, itemsAsOne } from '../runtime/stored-items.ts';
import type { AnswerTo, AskedTask, StateAnswers, StateQuestion } from './state-questions.ts';

/** Keys that a task looks at in one turn of a scan. */
const SCAN_KEYS = 64;
const SCAN_LIMIT = 100;

export interface StateSummary {
  readonly uid: string;
  readonly state: string;
  readonly kind: string;
  /** Of all tables that hold it. */
  readonly rows: number;
  /** An estimate. */
  readonly bytes: number;
  /** Keys of the operator that get the most records, by an estimate (hot-keys.ts): of a job that runs, and none where none stands out or few have come. */
  readonly hotKeys?: readonly { readonly key: Key; readonly share: number }[];
}

export interface StateEntry {
  readonly state: string;
  /** None of an item of a list. */
  readonly key?: Key;
  readonly value: unknown;
  /** Of the value, encoded; only where the largest were asked for. */
  readonly bytes?: number;
}

export interface ScanOptions {
  /** All of the operator's by default. */
  readonly state?: string | undefined;
  /** Of keys that are strings, or of the first part of those that are arrays. */
  readonly prefix?: string | undefined;
  /** 100 by default. */
  readonly limit?: number | undefined;
  /** All keys are looked at, and so many with the largest values given, largest first; instead of `limit`. */
  readonly largest?: number | undefined;
}

/** What the questions need of the job. */
export interface Questioned {
  readonly job: string;
  readonly maxParallelism: () => number;
  readonly ended: () => boolean;
  /** Of the attempts that run; none of a region that is down. */
  readonly tasks: () => readonly AskedTask[];
  readonly parallelism: (uid: string) => number;
  /** Every operator of the program. */
  readonly nodes: () => readonly Node[];
  readonly queryable: (node: Node) => Queryable;
  /** Resolves when a region has opened, or the job has ended. */
  readonly changed: () => Promise<void>;
}

export class StateQueries {
  readonly #of: Questioned;
  #walks = 0;

  constructor(of: Questioned) {
    this.#of = of;
  }

  /** The view of one key, or of all of a state without keys; undefined where there is nothing. */
  async query(uid: string, state: string, key?: Key): Promise<unknown> {
    const node = this.#node(uid);
    const unkeyed = this.#of.queryable(node).without.find((each) => each.name === state);
    // Of a list nothing can be asked by key: said below.
    if (unkeyed !== undefined && (key === undefined || unkeyed.kind === 'broadcastMap')) {
      const items = await this.#items(uid, unkeyed);
      return key === undefined ? itemsAsOne(items) : items.find((item) => sameKey(item.key, ownKey(key, node, uid).own))?.value;
    }
    const { tables } = this.#state(node, state);
    const { own, hash } = ownKey(key as Key, node, uid);
    const groups = this.#of.maxParallelism();
    const owner = (parallelism: number): number => instanceOf(groupOf(hash, groups), parallelism, groups);
    const rows = await this.#ask(uid, owner, { kind: 'rows', uid, tables, keys: [own] });
    return rows === undefined ? undefined : viewOf(this.#state(this.#node(uid), state), uid, own, rows, 0);
  }

  /** The state is there, and has no keys. */
  isUnkeyed(uid: string, state: string): boolean {
    return this.#of.queryable(this.#node(uid)).without.some(({ name }) => name === state);
  }

  /** Every item of all instances; of a broadcast map the entries, which are the same in each. */
  async #items(uid: string, { name, kind }: UnkeyedState): Promise<ReturnType<typeof itemOf>[]> {
    const items: ReturnType<typeof itemOf>[] = [];
    const instances = kind === 'broadcastMap' ? 1 : this.#of.parallelism(uid);
    for (let instance = 0; instance < instances; instance++) {
      const here = await this.#ask(uid, () => instance, { kind: 'items', uid, state: name });
      items.push(...(here ?? []).map(itemOf));
    }
    return items;
  }

  /** Every state of the job, or of one operator. */
  async list(uid?: string): Promise<StateSummary[]> {
    const has = ({ states, without }: Queryable): boolean => states.length + without.length > 0;
    const nodes = uid === undefined ? this.#of.nodes().filter((node) => has(this.#of.queryable(node))) : [this.#node(uid)];
    const out: StateSummary[] = [];
    for (const node of nodes) {
      const name = nameOf(node);
      for (const state of this.#of.queryable(node).without) {
        const items = await this.#items(name, state);
        const bytes = items.reduce((sum, { key, value }) => sum + (key === undefined ? 0 : keyBytes(key).length) + encode(value).length, 0);
        out.push({ uid: name, state: state.name, kind: state.kind, rows: items.length, bytes });
      }
      const figures: TableFigures[] = [];
      const weighed: WeighedKeys[] = [];
      for (let instance = 0; instance < this.#of.parallelism(name); instance++) {
        const here = await this.#ask(name, () => instance, { kind: 'figures' });
        figures.push(...(here?.tables ?? []));
        if (here?.hot !== undefined) weighed.push(here.hot);
      }
      const hotKeys = hottest(weighed);
      for (const { name: state, kind, table, tables } of this.#of.queryable(node).states) {
        const of = figures.filter((each) => tables.includes(each.name));
        const rows = of.filter((each) => each.name === table).reduce((sum, each) => sum + each.rows, 0);
        const bytes = of.reduce((sum, each) => sum + each.bytes, 0);
        out.push({ uid: name, state, kind, rows, bytes, ...(hotKeys.length === 0 ? {} : { hotKeys }) });
      }
    }
    return out;
  }

  /** Figures of what runs at the moment. */
  async metrics(): Promise<MetricSample[]> {
    const { job } = this.#of;
    const weighed = new Map<string, WeighedKeys[]>();
    const samples = this.#of.tasks().map(async (task): Promise<MetricSample[]> => {
      const { head } = task.vertex;
      const uid = nameOf(head);
      const { states } = this.#of.queryable(head);
      const figures = states.length === 0 && !isKeyed(head.step) ? undefined : await task.ask({ kind: 'figures' });
      if (figures === undefined) return [];
      if (figures.hot !== undefined) weighed.set(uid, [...(weighed.get(uid) ?? []), figures.hot]);
      return states.flatMap(({ name, tables }) => {
        const of = figures.tables.filter((table) => tables.includes(table.name));
        const labels = { job, task: task.name, uid, state: name };
        return [
          { name: 'keyedStateRows', labels, value: of.reduce((sum, { rows }) => sum + rows, 0) },
          { name: 'keyedStateBytes', labels, value: of.reduce((sum, { bytes }) => sum + bytes, 0) },
        ];
      });
    });
    const ofStates = (await Promise.all(samples)).flat();
    const hot = [...weighed].flatMap(([uid, instances]) =>
      hottest(instances).map(({ key, share }: HotKey): MetricSample => ({ name: 'hotKeyShare', labels: { job, uid, key: labelOf(key) }, value: share })),
    );
    return [...ofStates, ...hot];
  }

  /** Keys of an operator's state with their views, up to the limit; not all of one moment. */
  async scan(uid: string, { state, prefix, limit = SCAN_LIMIT, largest }: ScanOptions = {}): Promise<StateEntry[]> {
    const { states: byKey, without } = this.#of.queryable(this.#node(uid));
    const unkeyed = without.filter(({ name }) => state === undefined || name === state);
    const states = state === undefined ? byKey : unkeyed.length > 0 ? [] : [this.#state(this.#node(uid), state)];
    if (states.length + unkeyed.length === 0) this.#state(this.#node(uid), 'value');
    const found = new Found(limit, largest);
    for (const each of unkeyed)
      for (const [i, { key, value }] of (await this.#items(uid, each)).entries())
        if (prefix === undefined || (key !== undefined && hasPrefix(key as Key, prefix))) found.add(each.name, key, value, i);
    for (const { name } of states) {
      for (let instance = 0; instance < this.#of.parallelism(uid) && !found.full; instance++) await this.#scanOf(uid, instance, name, prefix, found);
    }
    return found.entries;
  }

  async #scanOf(uid: string, instance: number, name: string, prefix: string | undefined, found: Found): Promise<void> {
    const { table, tables } = this.#state(this.#node(uid), name);
    const walk = this.#walks++;
    const ask = <Q extends StateQuestion>(question: Q): Promise<AnswerTo<Q> | undefined> => this.#ask(uid, () => instance, question);
    let waiting: readonly StateKey[] = [];
    let many = SCAN_KEYS;
    try {
      let step: StateAnswers['step'] | undefined = 'gone';
      while (!found.full) {
        if (waiting.length === 0) {
          // Also where the task has begun anew meanwhile: what was found stays, by its key.
          if (step === 'gone') await ask({ kind: 'walk', uid, table, walk });
          step = await ask({ kind: 'step', walk });
          if (step === undefined || step === 'ended') break;
          if (step !== 'gone') waiting = step.keys.filter((key) => hasPrefix(key as Key, prefix));
          continue;
        }
        const here = waiting.slice(0, many);
        let rows: StateAnswers['rows'] | undefined;
        try {
          rows = await ask({ kind: 'rows', uid, tables, keys: here });
        } catch (error) {
          // More than goes from one host to another at once.
          if (codeOf(error) !== 'RECORD_TOO_LARGE' || many === 1) throw error;
          many = Math.ceil(many / 2);
          continue;
        }
        if (rows === undefined) break;
        waiting = waiting.slice(here.length);
        const state = this.#state(this.#node(uid), name);
        for (const [i, key] of here.entries()) {
          // A key that has moved comes twice; the later look is as good.
          const value = viewOf(state, uid, key, rows, i);
          if (value !== undefined) found.add(name, key, value);
        }
      }
    } finally {
      await this.#leave(uid, instance, walk);
    }
  }

  /** Of an attempt that is over the walk is too. */
  async #leave(uid: string, instance: number, walk: number): Promise<void> {
    await this.#tasksOf(uid)
      [instance]?.ask({ kind: 'leave', walk })
      .catch((error: unknown) => refuse(uid, error));
  }

  // ── tasks ──

  #node(uid: string): Node {
    const nodes = this.#of.nodes();
    const node = nodes.find((each) => nameOf(each) === uid);
    const have = nodes.filter((each) => this.#of.queryable(each).states.length > 0).map((each) => `'${nameOf(each)}'`);
    if (node !== undefined) return node;
    throw new MillraceError('STATE_NOT_FOUND', `The job '${this.#of.job}' has no operator '${String(uid)}'.`, {
      todo: have.length === 0 ? 'None of its operators keeps state by key.' : `Operators with state by key are ${have.join(', ')}.`,
    });
  }

  #state(node: Node, name: string): QueryableState {
    const { states, without } = this.#of.queryable(node);
    const state = states.find((each) => each.name === name);
    if (state !== undefined) return state;
    const uid = nameOf(node);
    const why = without.some((each) => each.name === name)
      ? `has the state '${name}' without a key`
      : states.length === 0
        ? 'keeps no state by key'
        : `has no state '${String(name)}'`;
    throw new MillraceError('STATE_NOT_FOUND', `'${uid}' ${why}.`, {
      uid,
      todo: without.some((each) => each.name === name)
        ? 'Ask for it without one.'
        : states.length === 0
          ? 'Look with millrace state ls at what there is.'
          : `States of '${uid}' that can be asked for: ${states.map((each) => each.name).join(', ')}.`,
    });
  }

  #tasksOf(uid: string): readonly AskedTask[] {
    return this.#of.tasks().filter(({ vertex }) => vertex.nodes.some((node) => nameOf(node) === uid));
  }

  /** Q3. Undefined: the operator runs, and has no such instance any more. */
  async #ask<Q extends StateQuestion>(uid: string, instance: (parallelism: number) => number, question: Q): Promise<AnswerTo<Q> | undefined> {
    for (;;) {
      if (this.#of.ended()) throw new MillraceError('JOB_ENDED', `The job '${this.#of.job}' has ended.`, { todo: 'Look at one of its checkpoints instead.' });
      const changed = this.#of.changed();
      const tasks = this.#tasksOf(uid);
      const task = tasks[instance(tasks.length)];
      if (task === undefined && tasks.length > 0) return undefined;
      const answer = await task?.ask(question).catch((error: unknown) => refuse(uid, error));
      if (answer !== undefined) return answer;
      await changed;
    }
  }
}

/** Text that says the key, strings as they are. */
function labelOf(key: StateKey): string {
  return typeof key === 'string' ? key : JSON.stringify(key, (_, part: unknown) => (typeof part === 'bigint' ? `${part}n` : part));
}

/** The entries of a scan: the first `limit` that come, or the largest of all. */
class Found {
  readonly #limit: number;
  readonly #largest: boolean;
  readonly #byKey = new Map<string, StateEntry>();

  constructor(limit: number, largest: number | undefined) {
    this.#limit = largest ?? limit;
    this.#largest = largest !== undefined;
  }

  get full(): boolean {
    return !this.#largest && this.#byKey.size >= this.#limit;
  }

  /** `item`: which of a list's, where there is no key. */
  add(state: string, key: StateKey | undefined, value: unknown, item = 0): void {
    if (this.full) return;
    const entry: StateEntry = { state, ...(key === undefined ? {} : { key: key as Key }), value, ...(this.#largest ? { bytes: encode(value).length } : {}) };
    this.#byKey.set(key === undefined ? `${state}#${item}` : `${state}/${keyBytes(key).toString('latin1')}`, entry);
    // Cut now and then, not at each.
    if (this.#largest && this.#byKey.size >= 2 * this.#limit + SCAN_KEYS) this.#cut();
  }

  #cut(): void {
    const sorted = [...this.#byKey].sort(([, one], [, other]) => other.bytes! - one.bytes!).slice(0, this.#limit);
    this.#byKey.clear();
    for (const [id, entry] of sorted) this.#byKey.set(id, entry);
  }

  get entries(): StateEntry[] {
    if (this.#largest) this.#cut();
    return [...this.#byKey.values()];
  }
}

function refuse(uid: string, error: unknown): never {
  if (error instanceof MillraceError) throw error;
  const code = codeOf(error) ?? 'RUNTIME_FAILED';
  throw new MillraceError(code, `The state of '${uid}' could not be looked at: ${messageOf(error)}`, { uid, cause: error });
}

/** What all of a `windowAll` lies under. */
const OF_ALL: StateKey = 0;

function ownKey(key: Key, { step }: Node, uid: string): { own: StateKey; hash: number } {
  if (step.kind === 'window' && step.spec.all) return { own: OF_ALL, hash: hashKey(OF_ALL) };
  try {
    const own = canonicalKey(key);
    return { own, hash: hashKey(own) };
  } catch (error) {
    const { message, todo } = error as { message: string; todo?: string };
    throw new MillraceError('KEY_UNSUPPORTED', `'${uid}' cannot be asked for that key: ${message.replace(` ${todo}`, '')}`, {
      uid,
      cause: error,
      todo: todo ?? 'Use strings, numbers, bigints, booleans, or arrays of these.',
    });
  }
}

/** Of the rows of several keys, those of one. */
function viewOf(state: QueryableState, uid: string, key: StateKey, { rows: all, watermark, now }: StateAnswers['rows'], which: number): unknown {
  const rows = (table: string) => all[which]![state.tables.indexOf(table)] ?? [];
  try {
    return state.view({ key, rows, watermark, now });
  } catch (error) {
    if (codeOf(error) !== undefined) throw error;
    throw new MillraceError('USER_FUNCTION_FAILED', `A function of '${uid}' failed on its state '${state.name}': ${messageOf(error)}.`, {
      uid,
      cause: error,
      todo: 'Mend the function; the job itself goes on.',
    });
  }
}

/** Of the key itself, or of its first part. */
export function hasPrefix(key: Key, prefix: string | undefined): boolean {
  if (prefix === undefined) return true;
  const first = Array.isArray(key) ? (key as readonly Key[])[0] : key;
  return first !== undefined && !Array.isArray(first) && String(first).startsWith(prefix);
}
