// Restore: which checkpoint to start from, and what each new task takes over of the old ones. Pure functions over metadata.
//
// Invariants:
//  E1  Every key group has exactly one new owner; a new task loads the handles of all old tasks whose range meets its own.
//  E2  A new task starts at the least stored watermark of the old instances that it takes over (protocols 13). Where splits change instances, so does what
//      comes behind their source by channels from one instance to one.
//  E3  Every writer identity and every split has exactly one new owner (protocols 5, 19).
//  E4  Falling back from n to m < n needs that no transactional writer has committed past m (protocols 4).
//  E5  Every record that was in flight goes to exactly one new task, of the operator that it was on its way to: at the same parallelism to the instance that had
//      it, else by key group, by the program's partition, or in turn.

import { type KeyGroupRange, rangeOf } from '../../state-backends/index.ts';
import { MillraceError } from '../errors.ts';
import { INSTANCES_MAX } from '../graph/instances.ts';
import type { CheckpointInfo } from '../graph/job.ts';
import { isKeyed, nameOf } from '../graph/node.ts';
import type { Graph, Vertex } from '../graph/plan.ts';
import { isTransactional } from '../graph/sink.ts';
import { redistribute, type StatePart } from '../runtime/parts.ts';
import type { InFlightShare, OperatorSnapshot, SplitSnapshot, TaskRestore, TaskSnapshot } from '../runtime/snapshot.ts';
import type { KnownSplits } from '../runtime/source-reader.ts';
import { type CheckpointMetadata, headOf } from './metadata.ts';
import type { Pointer } from './registry.ts';

export interface Candidate {
  readonly checkpoint: Pointer;
  /** Undefined: whole. Else what is wrong with it, naming the file. */
  readonly fault: Error | undefined;
  /** Undefined: it cannot be read. */
  readonly metadata: CheckpointMetadata | undefined;
}

/** The newest candidate that is whole; candidates are newest first. `skippedPast` names the newest that was passed over. */
export function newestWhole(candidates: readonly Candidate[]): { chosen: Candidate | undefined; passedOver: readonly Candidate[] } {
  const index = candidates.findIndex((c) => c.fault === undefined);
  return index === -1 ? { chosen: undefined, passedOver: candidates } : { chosen: candidates[index], passedOver: candidates.slice(0, index) };
}

export interface WriterIdentity {
  readonly lineage: string;
  readonly writer: string;
  readonly data: unknown;
}

/**
 * E4: the writers of a sink that may have committed one of the candidates: those of the plan, those that a metadata file names, and as many as a pointer says,
 * since of a checkpoint whose metadata is gone nothing else tells that it was made with more of them.
 */
export function writersToAsk(uid: string, parallelism: number, lineage: string, candidates: readonly Candidate[]): WriterIdentity[] {
  const count = Math.max(parallelism, ...candidates.map((c) => c.checkpoint.writers?.[uid] ?? 0));
  const counted = Array.from({ length: count }, (_, i) => ({ writer: String(i), lineage, data: undefined }));
  const named = candidates.flatMap((c) => c.metadata?.tasks ?? []).flatMap((t) => t.operators[uid]?.writers ?? []);
  return [...new Map([...counted, ...named].map(({ writer, lineage: its, data }) => [`${its}/${writer}`, { writer, lineage: its, data }])).values()];
}

/** E4: refuses where a sink has committed past the checkpoint fallen back to. */
export function refuseDuplicates(
  chosen: CheckpointInfo,
  passedOver: readonly Candidate[],
  markers: readonly { uid: string; writer: string; marker: number }[],
): void {
  const past = markers.filter((m) => m.marker > chosen.id);
  if (past.length === 0) return;
  const bad = passedOver[0]!;
  throw new MillraceError(
    'RESTORE_WOULD_DUPLICATE',
    `Checkpoint ${bad.checkpoint.id} cannot be used (${bad.fault?.message}) and the one before, ${chosen.id}, is older than what was committed: ${past.map((m) => `sink '${m.uid}', writer ${m.writer}, up to checkpoint ${m.marker}`).join('; ')}.`,
    { cause: bad.fault, todo: `Bring the file back, or accept that records are written twice with restore: { from: ${chosen.id} } (--restore ${chosen.id}).` },
  );
}

/** The number of key groups a job runs with. */
export function settleMaxParallelism(facts: { asked: number | undefined; stored: number | undefined; byDefault: number; largest: number }): number {
  const { asked, stored, byDefault, largest } = facts;
  if (stored !== undefined && asked !== undefined && asked !== stored) {
    throw new MillraceError('MAX_PARALLELISM_CHANGED', `The snapshot has maxParallelism ${stored}, and the job asks for ${asked}.`, {
      todo: `Use ${stored}, or leave the option out: the number of key groups is fixed by the first snapshot.`,
    });
  }
  const max = stored ?? asked ?? byDefault;
  if (!Number.isInteger(max) || max < 1)
    throw new MillraceError('OPTION_INVALID', `maxParallelism ${max}: the number of key groups must be a whole number above 0.`);
  if (largest > max) {
    throw new MillraceError(
      stored === undefined ? 'OPTION_INVALID' : 'MAX_PARALLELISM_CHANGED',
      `Parallelism ${largest} is larger than maxParallelism ${max}.`,
      { todo: stored === undefined ? 'Raise maxParallelism (at most 32,768).' : 'Run with less, or begin anew with restore: none.' },
    );
  }
  if (max > INSTANCES_MAX) throw new MillraceError('OPTION_INVALID', `maxParallelism ${max} is larger than 32,768.`);
  return max;
}

/** Uids of the snapshot that the program does not have any more, and that hold something. */
export function unclaimed(metadata: CheckpointMetadata, graph: Graph): string[] {
  const nodes = graph.vertices.flatMap((v) => v.nodes);
  const known = new Set(nodes.map(nameOf));
  const keyed = new Set(nodes.filter((n) => isKeyed(n.step)).map(nameOf));
  const stored = new Set<string>();
  const unkeyed = new Set<string>();
  for (const task of metadata.tasks) {
    // What `timestamps()` keeps is made anew, and its name changes with the program.
    for (const [uid, snapshot] of Object.entries(task.operators)) if (!uid.startsWith('timestamps.') && holds(snapshot)) stored.add(uid);
    // The name alone does not claim it: the operator must keep state by key still.
    const { uid, handle } = task.keyed ?? {};
    if (uid !== undefined && !keyed.has(uid) && (handle!.bases.length > 0 || handle!.deltas.length > 0)) unkeyed.add(uid);
  }
  return [...new Set([...stored].filter((uid) => !known.has(uid)).concat([...unkeyed]))];
}

/** Records that were in flight to an operator that no edge of that kind leads to any more: how many, by the name of that operator. */
export function strayed(metadata: CheckpointMetadata, graph: Graph): Map<string, number> {
  const addresses = new Set(graph.edges.map(({ address }) => address));
  const counts = new Map<string, number>();
  for (const { address, records } of metadata.tasks.flatMap((t) => t.inFlight?.lanes ?? [])) {
    if (address === undefined || records === 0 || addresses.has(address)) continue;
    const uid = headOf(address);
    counts.set(uid, (counts.get(uid) ?? 0) + records);
  }
  return counts;
}

/** By uid: how many records a sink has pending in the snapshot that is not transactional any more, and so would never commit them. */
export function uncommitted(metadata: CheckpointMetadata, graph: Graph): Map<string, number> {
  const pending = new Map<string, number>();
  for (const node of graph.vertices.flatMap((v) => v.nodes)) {
    const uid = nameOf(node);
    if (node.step.kind !== 'sink' || isTransactional(node.step.sink)) continue;
    const segments = metadata.tasks.flatMap((t) => t.operators[uid]?.writers ?? []).flatMap((writer) => writer.segments);
    const records = segments.reduce((sum, segment) => sum + segment.records, 0);
    if (records > 0) pending.set(uid, records);
  }
  return pending;
}

/** An operator whose parts are all empty has lost nothing. */
function holds({ parts, ...others }: OperatorSnapshot): boolean {
  return Object.keys(others).length > 0 || Object.values(parts ?? {}).some(({ items }) => items.length > 0);
}

/** The splits are those of a source. */
export interface VertexRestore extends KnownSplits {
  readonly tasks: readonly TaskRestore[];
}

export function restoreVertex(vertex: Vertex, metadata: CheckpointMetadata, maxParallelism: number): VertexRestore {
  const { parallelism, head } = vertex;
  const old = metadata.tasks.filter((t) => t.vertex === vertex.id).sort((a, b) => a.subtask - b.subtask);
  const keyedOld = isKeyed(head.step) ? metadata.tasks.filter((t) => t.keyed?.uid === nameOf(head)) : [];
  const splits = dealSplits(
    gather(metadata, nameOf(head)).flatMap((s) => s.splits ?? []),
    parallelism,
  );
  const moved = inputsMoved(vertex, metadata);
  const tasks = Array.from({ length: parallelism }, (_, subtask): TaskRestore => {
    const range = rangeOf(subtask, parallelism, maxParallelism);
    const keyed = keyedOld.filter((t) => meets(t.keyed!.range, range));
    const taken = isKeyed(head.step) ? keyed : takenOver(vertex, old, splits[subtask]!, subtask, moved);
    const operators: Record<string, OperatorSnapshot> = {};
    const parts: Record<string, Record<string, readonly unknown[]>> = {};
    for (const node of vertex.nodes) {
      const uid = nameOf(node);
      const snapshots = gather(metadata, uid);
      const given = partsOf(metadata, uid);
      if (given.length > 0) parts[uid] = redistribute(given, { subtask, parallelism, maxParallelism });
      const writers = snapshots.flatMap((s) => s.writers ?? []).filter((w) => Number(w.writer) % parallelism === subtask);
      const letters = subtask === 0 ? snapshots.flatMap((s) => s.deadLetters ?? []) : [];
      operators[uid] = {
        ...(node.step.kind === 'source' ? { splits: splits[subtask]!.map((s) => (metadata.drained ? { ...s, time: undefined } : s)) } : {}),
        ...(writers.length > 0 ? { writers } : {}),
        ...(letters.length > 0
          ? { deadLetters: letters.slice(-1000), deadLettersDropped: snapshots.reduce((sum, s) => sum + (s.deadLettersDropped ?? 0), 0) }
          : {}),
      };
    }
    const watermark = metadata.drained || taken.length === 0 ? Number.NEGATIVE_INFINITY : Math.min(...taken.map((t) => t.watermark));
    return {
      watermark,
      // Of one that was further its timers wait for the next watermark.
      advancing: taken.some((t) => t.advancing === true && t.watermark === watermark),
      inFlight: inFlightOf(vertex, metadata, subtask, maxParallelism),
      moved,
      processingTime: Math.max(0, ...metadata.tasks.map((t) => t.processingTime)),
      ended: !metadata.drained && taken.length > 0 && taken.every((t) => t.ended) && splits[subtask]!.every((s) => s.finished),
      operators,
      parts,
      handles: keyed.map((t) => t.keyed!.handle),
    };
  });
  const all = splits.flat();
  // An instance that has ended stands behind the end of time: what is found from now on goes to the others.
  const counts = splits.map((s, i) => (tasks[i]!.ended ? Number.POSITIVE_INFINITY : s.filter((x) => !x.finished).length));
  const ended = new Map(all.filter((s) => s.finished && s.rest === undefined).map((s) => [s.id, s.position]));
  return { tasks, known: new Set(all.map((s) => s.id)), ended, counts };
}

/** E5. */
function inFlightOf(vertex: Vertex, metadata: CheckpointMetadata, subtask: number, maxParallelism: number): InFlightShare[] {
  const { parallelism } = vertex;
  const range = rangeOf(subtask, parallelism, maxParallelism);
  const onlyKeyed = vertex.inputs.every(({ exchange }) => exchange === 'hash' || exchange === 'broadcast');
  const shares = metadata.tasks.flatMap((t): InFlightShare[] => {
    if (t.inFlight === undefined) return [];
    const inputs = t.inFlight.lanes.map(({ address }) => (address === undefined ? -1 : vertex.inputs.findIndex((edge) => edge.address === address)));
    if (inputs.every((input) => input === -1)) return [];
    const dealtAlike = t.inFlight.maxParallelism === maxParallelism;
    const whole = t.parallelism === parallelism && dealtAlike;
    if (whole ? t.subtask !== subtask : onlyKeyed && dealtAlike && !meets(rangeOf(t.subtask, t.parallelism, maxParallelism), range)) return [];
    return [{ from: t.subtask, snapshot: t.inFlight, inputs: inputs.map((input) => (input === -1 ? undefined : input)), whole }];
  });
  return shares.sort((a, b) => a.from - b.from);
}

/** Of a source: the old instances that held the splits that the new one is given; they are dealt out anew, also at the same parallelism. */
function takenOver(vertex: Vertex, old: readonly TaskSnapshot[], splits: readonly SplitSnapshot[], subtask: number, moved: boolean): readonly TaskSnapshot[] {
  if (splits.length > 0) {
    const uid = nameOf(vertex.head);
    const given = new Set(splits.map((s) => s.id));
    return old.filter((t) => t.operators[uid]?.splits?.some((s) => given.has(s.id)));
  }
  return old.length === vertex.parallelism && !moved ? old.filter((t) => t.subtask === subtask) : old;
}

/** What an instance is given is not what the old one of its number was given: a split upstream goes to another instance. Behind an all-to-all exchange nobody sees that. */
function inputsMoved(vertex: Vertex, metadata: CheckpointMetadata): boolean {
  return vertex.inputs.some(({ exchange, from }) => {
    if (exchange !== 'forward' && exchange !== 'rescale') return false;
    const old = metadata.tasks.filter((t) => t.vertex === from.id).sort((a, b) => a.subtask - b.subtask);
    return old.length !== from.parallelism || (from.head.step.kind === 'source' ? splitsMoved(from, old) : inputsMoved(from, metadata));
  });
}

function splitsMoved({ head, parallelism }: Vertex, old: readonly TaskSnapshot[]): boolean {
  const held = old.map((t) => t.operators[nameOf(head)]?.splits ?? []);
  return dealSplits(held.flat(), parallelism).some((share, subtask) => share.some((s) => !s.finished && !held[subtask]!.some(({ id }) => id === s.id)));
}

/** Of all old instances, in their order. What an instance that has ended kept to itself, it has given away in its `onEnd`. */
export function partsOf(metadata: CheckpointMetadata, uid: string): Readonly<Record<string, StatePart>>[] {
  const tasks = metadata.tasks.filter((t) => t.operators[uid]?.parts !== undefined).sort((a, b) => a.subtask - b.subtask);
  return tasks.map((t) => {
    const { parts } = t.operators[uid]!;
    return t.ended ? Object.fromEntries(Object.entries(parts!).map(([name, part]) => [name, part.mode === 'split' ? { ...part, items: [] } : part])) : parts!;
  });
}

/** Of all old instances, in their order. */
function gather(metadata: CheckpointMetadata, uid: string): OperatorSnapshot[] {
  const tasks: readonly TaskSnapshot[] = metadata.tasks.filter((t) => t.operators[uid] !== undefined);
  return [...tasks].sort((a, b) => a.subtask - b.subtask).map((t) => t.operators[uid]!);
}

function meets(a: KeyGroupRange, b: KeyGroupRange): boolean {
  return a.from <= b.to && b.from <= a.to;
}

/** Known splits are dealt out anew in order of their ids, unfinished ones first to the instance with the fewest. One that was on its way to its instance is there once. */
function dealSplits(all: readonly SplitSnapshot[], parallelism: number): SplitSnapshot[][] {
  const arrived = new Set(all.flatMap(({ id, handed }) => (handed === true ? [] : [id])));
  const splits = all.filter(({ id, handed }) => handed !== true || !arrived.has(id));
  const shares = Array.from({ length: parallelism }, () => [] as SplitSnapshot[]);
  const counts = new Array<number>(parallelism).fill(0);
  for (const split of [...splits].sort((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0))) {
    const least = counts.indexOf(Math.min(...counts));
    shares[least]!.push(split);
    if (!split.finished) counts[least]! += 1;
  }
  return shares;
}
