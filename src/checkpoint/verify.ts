// Whether a program can take over a snapshot: state by state, before it is deployed.
//
// What: a restore without a job. The operators of the program are built on state that only notes what is declared, then every file of the snapshot is read, and
// each table in it is compared with the declaration; values of another version are migrated, and the result thrown away.
//
// Invariants:
//  Y1  What is refused here is what a start would refuse, or lose; what a start takes over is taken over here.
//  Y2  Nothing is written, no handler of the program is called but `migrate`, nothing outside is touched: sources and sinks are not opened.
//  Y3  Every refusal says what to do. A file that is damaged is an error and no verdict.

import {
  type Backend,
  type BaseRef,
  type DeltaRef,
  EXPIRING,
  filesOfBase,
  type KeyGroupRange,
  memory,
  type TableHeader,
  type TableOptions,
  type TaskState,
  versionFault,
} from '../../state-backends/index.ts';
import { codeOf, MillraceError, messageOf } from '../errors.ts';
import { isKeyed, type Node, nameOf } from '../graph/node.ts';
import type { Graph } from '../graph/plan.ts';
import { bareEnvironment } from '../runtime/bare-environment.ts';
import type { Operator, OperatorFactory } from '../runtime/operator.ts';
import { redistribute } from '../runtime/parts.ts';
import { isProgramState, stateName } from '../runtime/program-state.ts';
import type { CheckpointMetadata, SavepointEdit } from './metadata.ts';
import { partsOf, settleMaxParallelism, strayed, unclaimed, uncommitted } from './restore.ts';
import type { SnapshotFiles } from './storage.ts';
import { visitRows } from './stored-rows.ts';

export interface StateVerdict {
  readonly uid: string;
  /** Undefined: all that the operator holds. */
  readonly state: string | undefined;
  /** `refused`: a start is refused. `dropped`: what is stored is lost, which has been accepted. */
  readonly outcome: 'kept' | 'migrated' | 'new' | 'dropped' | 'refused';
  readonly rows: number;
  readonly sentence: string;
  readonly todo?: string | undefined;
}

export interface Verdict {
  readonly id: number;
  readonly job: string;
  readonly maxParallelism: number;
  /** The program can start from it. */
  readonly takesOver: boolean;
  readonly states: readonly StateVerdict[];
  /** What was done to the snapshot without a job, oldest first. */
  readonly edits?: readonly SavepointEdit[];
}

export interface VerifyOptions {
  readonly metadata: CheckpointMetadata;
  readonly files: Pick<SnapshotFiles, 'read' | 'check'>;
  readonly graph: Graph;
  readonly operators: (node: Node) => OperatorFactory;
  readonly maxParallelism: number | undefined;
  readonly allowNonRestoredState: boolean;
}

/** A table as the program declares it. */
interface DeclaredTable extends TableHeader {
  readonly migrate: TableOptions['migrate'] | undefined;
}

export async function verify(options: VerifyOptions): Promise<Verdict> {
  const { metadata, graph, files, maxParallelism: asked } = options;
  const states: StateVerdict[] = [];
  const refuse = (uid: string, error: unknown): void => {
    const todo = (error as { todo?: unknown }).todo;
    const sentence = error instanceof MillraceError ? error.sentence : without(messageOf(error), todo);
    states.push({ uid, state: undefined, outcome: 'refused', rows: 0, sentence, todo: typeof todo === 'string' ? todo : undefined });
  };
  const largest = Math.max(...graph.vertices.map((v) => v.parallelism));
  try {
    settleMaxParallelism({ asked, stored: metadata.maxParallelism, byDefault: metadata.maxParallelism, largest });
  } catch (error) {
    const sentence = error instanceof MillraceError ? error.sentence : messageOf(error);
    const todo = `Use ${metadata.maxParallelism} and at most so many instances, or make a savepoint of another number with millrace state repartition.`;
    states.push({ uid: metadata.job, state: 'maxParallelism', outcome: 'refused', rows: 0, sentence, todo });
  }
  for (const uid of unclaimed(metadata, graph)) states.push(lost(options, uid, undefined, 0, lossOf(uid, graph)));
  for (const [uid, records] of strayed(metadata, graph))
    states.push(
      lost(options, uid, 'records in flight', records, `The program has no exchange any more by which ${records} records were on their way to '${uid}'`),
    );
  for (const { inFlight } of metadata.tasks) if (inFlight !== undefined) await files.check(inFlight.file);
  for (const [uid, records] of uncommitted(metadata, graph))
    states.push(lost(options, uid, 'records not yet committed', records, `The sink '${uid}' is not transactional any more`));
  for (const vertex of graph.vertices) {
    for (const node of vertex.nodes) {
      const { step } = node;
      const uid = nameOf(node);
      if (!isOperator(node)) continue;
      const built = await declare(node, metadata, options.operators);
      if ('error' in built) {
        refuse(uid, built.error);
        continue;
      }
      states.push(...partVerdicts(options, uid, built.asked).filter(({ outcome }) => step.kind === 'process' || outcome !== 'kept'));
      if (isKeyed(step)) states.push(...(await tableVerdicts(options, node, built.tables)));
    }
  }
  return {
    id: metadata.id,
    job: metadata.job,
    maxParallelism: metadata.maxParallelism,
    takesOver: states.every(({ outcome }) => outcome !== 'refused'),
    states: states.sort((a, b) => compared(a.uid, b.uid) || compared(a.state ?? '', b.state ?? '')),
    ...(metadata.edits === undefined ? {} : { edits: metadata.edits }),
  };
}

/** Those that take something over. What `timestamps()` keeps is made anew where its place in the program changes. */
const STEPS: ReadonlySet<string> = new Set(['reduce', 'aggregate', 'window', 'process', 'intervalJoin', 'asyncMap']);
function isOperator({ step }: Node): boolean {
  return STEPS.has(step.kind);
}

function lossOf(uid: string, graph: Graph): string {
  return graph.vertices.some((v) => v.nodes.some((n) => nameOf(n) === uid))
    ? `The operator '${uid}' has no keyed state any more`
    : `The program has no operator '${uid}' any more`;
}

function lost({ allowNonRestoredState }: VerifyOptions, uid: string, state: string | undefined, rows: number, why: string): StateVerdict {
  if (allowNonRestoredState) return { uid, state, outcome: 'dropped', rows, sentence: `${why}; what is stored of it is dropped.` };
  const todo = 'Bring it back under that name, or accept that what is stored is dropped: allowNonRestoredState (--allow-non-restored-state).';
  return { uid, state, outcome: 'refused', rows, sentence: `${why}.`, todo };
}

// ── what the program declares ──

type Built = { readonly tables: readonly DeclaredTable[]; readonly asked: ReadonlySet<string> } | { readonly error: unknown };

/** Builds the operator, as a task does when it opens, and no further. */
async function declare(node: Node, metadata: CheckpointMetadata, operators: VerifyOptions['operators']): Promise<Built> {
  const uid = nameOf(node);
  const { maxParallelism } = metadata;
  const region = await (memory() as Backend).open({ name: 'verify', tracked: false });
  const state = region.task({ maxParallelism, range: { from: 0, to: maxParallelism - 1 }, undo: false });
  const given = partsOf(metadata, uid);
  const parts = given.length === 0 ? {} : redistribute(given, { subtask: 0, parallelism: 1, maxParallelism });
  const tables: DeclaredTable[] = [];
  const asked = new Set<string>();
  const abort = new AbortController();
  const environment = bareEnvironment({
    node,
    state: noting(state, tables),
    restored: (name) => {
      asked.add(name);
      return parts[name];
    },
    signal: abort.signal,
  });
  try {
    const _: Operator = operators(node)(environment);
    return { tables, asked };
  } catch (error) {
    return { error };
  } finally {
    abort.abort();
    await region.close();
  }
}

function noting(state: TaskState, tables: DeclaredTable[]): TaskState {
  const note = (uid: string, name: string, layout: TableHeader['layout'], options: TableOptions | undefined): void => {
    tables.push({ uid, name, layout, version: options?.version ?? 0, migrate: options?.migrate });
  };
  return {
    ...bound(state),
    single(uid, name, options) {
      note(uid, name, 'single', options);
      return state.single(uid, name, options);
    },
    ordered(uid, name, options) {
      note(uid, name, 'ordered', options);
      return state.ordered(uid, name, options);
    },
    keyed(uid, name, options) {
      note(uid, name, 'keyed', options);
      return state.keyed(uid, name, options);
    },
    timers(uid, name, few) {
      note(uid, name, 'timers', undefined);
      return state.timers(uid, name, few);
    },
  };
}

/** Methods of a class are not copied by a spread. */
function bound(state: TaskState): TaskState {
  return {
    single: state.single.bind(state),
    ordered: state.ordered.bind(state),
    keyed: state.keyed.bind(state),
    timers: state.timers.bind(state),
    load: state.load.bind(state),
    loadLinked: state.loadLinked.bind(state),
    beginUnit: state.beginUnit.bind(state),
    commitUnit: state.commitUnit.bind(state),
    rollbackUnit: state.rollbackUnit.bind(state),
    pressed: false,
    maintain: state.maintain.bind(state),
    relieve: state.relieve.bind(state),
    freeze: state.freeze.bind(state),
    encode: state.encode.bind(state),
    takeDeltas: state.takeDeltas.bind(state),
    unsettled: false,
    sweep: state.sweep.bind(state),
    stats: state.stats.bind(state),
    look: state.look.bind(state),
  };
}

/** What of a snapshot the program's operators take over: all of an operator that cannot be built, which says why at its start. */
export interface Claims {
  table(table: Pick<TableHeader, 'uid' | 'name'>): boolean;
  /** State without keys. */
  part(uid: string, name: string): boolean;
}

export async function claiming(graph: Graph, metadata: CheckpointMetadata, operators: VerifyOptions['operators']): Promise<Claims> {
  const declared = new Map<string, Built>();
  for (const node of graph.vertices.flatMap(({ nodes }) => nodes)) if (isOperator(node)) declared.set(nameOf(node), await declare(node, metadata, operators));
  const has = (uid: string, of: (built: Extract<Built, { asked: unknown }>) => boolean): boolean => {
    const built = declared.get(uid);
    return built !== undefined && ('error' in built || of(built));
  };
  return {
    table: ({ uid, name }) => has(uid, ({ tables }) => tables.some((each) => each.name === name)),
    // What others keep is made anew, or none of theirs.
    part: (uid, name) => !declared.has(uid) || has(uid, ({ asked }) => asked.has(name)),
  };
}

// ── what is stored ──

/** State without keys: the operator has asked for what it takes over, and has migrated it. */
function partVerdicts(options: VerifyOptions, uid: string, asked: ReadonlySet<string>): StateVerdict[] {
  const counts = new Map<string, number>();
  for (const parts of partsOf(options.metadata, uid)) {
    for (const [name, { items }] of Object.entries(parts)) counts.set(name, (counts.get(name) ?? 0) + items.length);
  }
  const verdicts: StateVerdict[] = [];
  for (const [name, rows] of counts) {
    if (asked.has(name)) verdicts.push({ uid, state: name, outcome: 'kept', rows, sentence: `${rows} items are taken over.` });
    else if (rows > 0) verdicts.push(lost(options, uid, name, rows, `The operator '${uid}' has no state '${name}' any more`));
  }
  return verdicts;
}

interface Found {
  readonly stored: TableHeader;
  rows: number;
  /** Also of what is gone since. */
  mentioned: number;
  migrated: boolean;
  /** Why a start would refuse it. */
  refused: { readonly sentence: string; readonly todo: string | undefined } | undefined;
}

async function tableVerdicts(options: VerifyOptions, node: Node, declared: readonly DeclaredTable[]): Promise<StateVerdict[]> {
  const { metadata, files } = options;
  const uid = nameOf(node);
  const { kind } = node.step;
  const found = new Map<string, Found>();
  for (const { ref, ranges } of filesOfKeyed(metadata, uid)) {
    let tables: { readonly of: Found; readonly migrate: TableOptions['migrate'] | undefined; readonly version: number }[] = [];
    // Names the file where it is damaged; a reader of rows does not know it.
    for (const file of 'tables' in ref ? filesOfBase(ref) : [ref.file]) await files.check(file);
    await visitRows({ ...ref, ranges }, files, {
      maxParallelism: metadata.maxParallelism,
      onTables: (headers) => {
        tables = headers.map((stored) => {
          const of: Found = found.get(stored.name) ?? { stored, rows: 0, mentioned: 0, migrated: false, refused: undefined };
          found.set(stored.name, of);
          const mine = declared.find(({ name }) => name === stored.name);
          const migrates = mine !== undefined && mine.layout === stored.layout && mine.version !== stored.version;
          if (mine !== undefined) of.refused ??= differs(uid, stored, mine);
          if (migrates) of.migrated = true;
          return { of, migrate: migrates ? mine.migrate : undefined, version: stored.version };
        });
      },
      onRow: (number, what, key, hash, _, value) => {
        const { of, migrate, version } = tables[number]!;
        of.mentioned += 1;
        if (what !== 0) return;
        of.rows += 1;
        if (migrate === undefined || of.refused !== undefined) return;
        try {
          migrate(value, version, key, hash);
        } catch (error) {
          of.refused = refusalOf(uid, of.stored.name, error);
        }
      },
    });
  }
  const verdicts: StateVerdict[] = [];
  if (kind === 'window') {
    const rows = [...found.values()].reduce((sum, each) => sum + each.rows, 0);
    verdicts.push(
      rows === 0
        ? { uid, state: undefined, outcome: 'new', rows, sentence: 'Nothing is stored of its windows; they begin empty.' }
        : { uid, state: undefined, outcome: 'kept', rows, sentence: `${rows} rows of windows and their timers are taken over.` },
    );
  }
  for (const [table, { rows, mentioned, migrated, refused }] of found) {
    const name = stateName(table);
    const known = declared.some((each) => each.name === table);
    if (refused !== undefined) verdicts.push({ uid, state: name, outcome: 'refused', rows, ...refused });
    else if (!isProgramState(table, kind) || (!known && mentioned === 0)) continue;
    else if (!known) verdicts.push(lost(options, uid, name, rows, `The operator '${uid}' has no state '${name}' any more`));
    else
      verdicts.push({
        uid,
        state: name,
        outcome: migrated && rows > 0 ? 'migrated' : 'kept',
        rows,
        sentence: `${rows} rows are ${migrated ? 'migrated' : 'taken over'}.`,
      });
  }
  for (const { name } of declared) {
    if (!found.has(name) && isProgramState(name, kind))
      verdicts.push({ uid, state: stateName(name), outcome: 'new', rows: 0, sentence: 'Nothing is stored of it; it begins empty.' });
  }
  return verdicts;
}

/** Each file once, with the key groups that it counts for in all tasks that name it. */
function filesOfKeyed(metadata: CheckpointMetadata, uid: string) {
  const whole: KeyGroupRange = { from: 0, to: metadata.maxParallelism - 1 };
  const files = new Map<string, { readonly ref: BaseRef | DeltaRef; readonly ranges: KeyGroupRange[] }>();
  for (const task of metadata.tasks) {
    if (task.keyed?.uid !== uid) continue;
    const { handle } = task.keyed;
    const within = handle.range ?? whole;
    for (const ref of [...handle.bases, ...handle.deltas]) {
      const entry: { readonly ref: BaseRef | DeltaRef; readonly ranges: KeyGroupRange[] } = files.get(ref.file.name) ?? { ref, ranges: [] };
      for (const { from, to } of ref.ranges ?? [whole]) entry.ranges.push({ from: Math.max(from, within.from), to: Math.min(to, within.to) });
      files.set(ref.file.name, entry);
    }
  }
  return [...files.values()];
}

function differs(uid: string, stored: TableHeader, declared: DeclaredTable): Found['refused'] {
  if (stored.layout !== declared.layout)
    return {
      sentence: `State ${uid}/${stored.name} was stored as ${KINDS[stored.layout]} and is declared as ${KINDS[declared.layout]}.`,
      todo: 'Give the new kind of state another name.',
    };
  return versionFault(`${uid}/${stored.name}`, stored.version % EXPIRING, declared.version % EXPIRING, declared.migrate !== undefined);
}

const KINDS: Record<TableHeader['layout'], string> = { single: 'one value a key', ordered: 'a list', keyed: 'a map', timers: 'timers' };

function refusalOf(uid: string, name: string, error: unknown): NonNullable<Found['refused']> {
  const { todo } = error as { todo?: unknown };
  if (codeOf(error) === 'SNAPSHOT_INCOMPATIBLE') return { sentence: without(messageOf(error), todo), todo: typeof todo === 'string' ? todo : undefined };
  return { sentence: `\`migrate\` of state ${uid}/${name} threw: ${messageOf(error)}.`, todo: 'Make it take every value that was stored.' };
}

function without(message: string, todo: unknown): string {
  return typeof todo === 'string' && message.endsWith(todo) ? message.slice(0, -todo.length).trimEnd() : message;
}

function compared(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
