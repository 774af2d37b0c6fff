// What a task hands to the coordinator at a barrier, and what it is given back on restore.
//
// A snapshot is small: keyed state and sink segments lie in files that it names; split positions, watermarks and the like stand in it. Everything in it
// survives the codec of `state-backends` (plain data and bytes).

import type { FileRef, Handle, KeyGroupRange } from '../../state-backends/index.ts';
import type { DeadLetter } from '../graph/job.ts';
import type { ByteRange } from '../graph/storage.ts';
import type { SplitTime } from '../time/generators.ts';
import type { StatePart } from './parts.ts';

export interface SplitSnapshot {
  readonly id: string;
  readonly split: unknown;
  /** Undefined: from the beginning. */
  readonly position: unknown;
  readonly finished: boolean;
  /** Records of the batch that ends at `position` and were not emitted yet; they come first after a restore (protocols 19). */
  readonly rest: { readonly values: readonly unknown[]; readonly timestamps: readonly number[] | undefined } | undefined;
  readonly time: SplitTime | undefined;
  /** Dealt to another instance, whose snapshot of the same checkpoint may have been taken before it heard of it. Where that has the split, its word counts. */
  readonly handed?: true;
}

export interface SegmentSnapshot {
  readonly checkpoint: number;
  readonly file: FileRef;
  readonly records: number;
}
/** An identity is { uid, lineage, writer }; what is pending keeps the one that wrote it for ever (protocols 5). */
export interface WriterSnapshot {
  readonly lineage: string;
  readonly writer: string;
  /** Oldest first; not known to be committed. */
  readonly segments: readonly SegmentSnapshot[];
  readonly data: unknown;
}

export interface OperatorSnapshot {
  readonly splits?: readonly SplitSnapshot[];
  readonly writers?: readonly WriterSnapshot[];
  readonly deadLetters?: readonly DeadLetter[];
  readonly deadLettersDropped?: number;
  /** What the operator keeps outside of keyed state. */
  readonly parts?: Readonly<Record<string, StatePart>>;
}

/** A lane of what was in flight: what one input channel held, or what a restored one still did. */
export interface Lane {
  /** Of the edge (graph/plan.ts); undefined: what stood there cannot be recorded, and it brings time only. */
  readonly address: string | undefined;
  /** Lanes of a stage come before those of the next. */
  readonly stage: number;
  readonly records: number;
}

/** What stood in front of an unaligned barrier in a task's inputs. */
export interface InFlightSnapshot {
  readonly file: FileRef;
  /** Of the job when records were dealt to this instance by key. */
  readonly maxParallelism: number;
  /** As the file numbers them. */
  readonly lanes: readonly Lane[];
}

export interface TaskSnapshot {
  readonly vertex: string;
  readonly subtask: number;
  readonly parallelism: number;
  readonly watermark: number;
  /** That watermark was on its way: timers up to it may still have to fire, and it has not left. */
  readonly advancing?: true | undefined;
  readonly processingTime: number;
  /** It has seen its last record and run its `onEnd`. */
  readonly ended: boolean;
  /** By uid. */
  readonly operators: Readonly<Record<string, OperatorSnapshot>>;
  /** Of the vertex's keyed operator. */
  readonly keyed: { readonly uid: string; readonly range: KeyGroupRange; readonly handle: Handle } | undefined;
  /** Only of an unaligned checkpoint, where something was in flight. */
  readonly inFlight?: InFlightSnapshot | undefined;
}

/** Of one old instance, what was in flight there. */
export interface InFlightShare {
  /** Its number. */
  readonly from: number;
  readonly snapshot: InFlightSnapshot;
  /** By lane: which of the vertex's inputs its records are for; undefined: none. */
  readonly inputs: readonly (number | undefined)[];
  /** True: all of it is this task's. False: records are dealt out among all instances. */
  readonly whole: boolean;
}

/** What a restored task starts from: its share of the old instances' snapshots. */
export interface TaskRestore {
  readonly watermark: number;
  /** That watermark is still on its way. */
  readonly advancing: boolean;
  readonly inFlight: readonly InFlightShare[];
  /** Inputs come from elsewhere now: what lanes say of time is not heard. */
  readonly moved: boolean;
  readonly processingTime: number;
  readonly ended: boolean;
  readonly operators: Readonly<Record<string, OperatorSnapshot>>;
  /** By uid, then by name: what operators are given back of their parts. */
  readonly parts: Readonly<Record<string, Readonly<Record<string, readonly unknown[]>>>>;
  /** All old handles whose range meets this task's. */
  readonly handles: readonly Handle[];
}

/** Where snapshot files lie. Names are unique for ever: nothing is overwritten. */
export interface SnapshotStorage {
  /**
   * Durable when it resolves, and read back where `verify` is on. The blocks' memory is then used for others: whoever wants to keep them copies them. The same holds
   * for `append`.
   */
  write(name: string, blocks: Iterable<Uint8Array>): Promise<FileRef>;
  /** A file written piece by piece, for bases. */
  open(name: string): Promise<{ append(blocks: Iterable<Uint8Array>): Promise<void>; finish(): Promise<FileRef>; abandon(): Promise<void> }>;
  /** The whole file, its checksum compared at the end; of a range only the length is, so whoever reads one compares the checksums in it. */
  read(file: FileRef, range?: ByteRange): AsyncIterable<Uint8Array>;
  /** Nothing where there is no such file. */
  remove(name: string): Promise<void>;
}
