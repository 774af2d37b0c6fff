// The metadata of a checkpoint: what it is made of, and how it is stored (docs/formats.md).
//
//   bytes 0–3  'MRCP'    4  version    5–8  length of the body (u32 LE)    9–12  CRC32 of the body    then the body: one value of the codec

import { crc32 } from 'node:zlib';
import { type BaseRef, type DeltaRef, decode, encode, type FileRef, filesOf, renamed } from '../../state-backends/index.ts';
import { messageOf } from '../errors.ts';
import type { CheckpointStorage } from '../graph/storage.ts';
import type { TaskSnapshot } from '../runtime/snapshot.ts';
import { nameIn } from './addresses.ts';
import { corrupt, isDamage } from './storage.ts';

export interface CheckpointMetadata {
  readonly id: number;
  readonly job: string;
  readonly lineage: string;
  readonly attempt: number;
  readonly maxParallelism: number;
  readonly planHash: string;
  readonly startedAt: number;
  readonly durationMs: number;
  /** Taken by `stop({ drain: true })`: event time had been driven to the end, so stored watermarks mean nothing for what comes next. */
  readonly drained: boolean;
  readonly tasks: readonly TaskSnapshot[];
  /** It is a savepoint: its files lie beside it (savepoint.ts). */
  readonly savepoint?: true | undefined;
  /** What was done to it offline, oldest first. */
  readonly edits?: readonly SavepointEdit[] | undefined;
}

/** What an edit has made of one operator. Rows: one a value, 64 elements of a list, an entry of a map, a timer, an item. */
export interface OperatorEdit {
  /** Its uid from then on; of one that was removed, as it was. */
  readonly uid: string;
  readonly change: 'changed' | 'added' | 'removed' | 'renamed';
  /** Of one that was renamed. */
  readonly from?: string;
  /** Those that have changed, by name; none where the operator was renamed or removed as a whole. */
  readonly states: readonly string[];
  /** Rows that are new or have another value. */
  readonly written: number;
  readonly deleted: number;
}

/** What was done to a savepoint without a job, as its metadata says it. */
export interface SavepointEdit {
  /** Epoch milliseconds. */
  readonly at: number;
  /** A line for people. */
  readonly what: string;
  /** Who: `user@host`, unless said otherwise. */
  readonly by?: string;
  /** Which release of Millrace. */
  readonly tool?: string;
  /** What it was made of: undefined of one that began with nothing. `checksum` is the SHA-256 of that metadata file, in hex; it covers every file. */
  readonly from?: { readonly id: number; readonly path: string; readonly checksum: string };
  readonly operators?: readonly OperatorEdit[];
  /** What whoever did it had to say. */
  readonly note?: string;
}

const MAGIC = Buffer.from('MRCP');
const VERSION = 1;
/** Of one that says what was in flight: a release that does not know that must not restore it. */
const VERSION_IN_FLIGHT = 2;
const HEADER = 13;

export function packMetadata(metadata: CheckpointMetadata): Uint8Array {
  const body = encode(metadata);
  const header = Buffer.alloc(HEADER);
  MAGIC.copy(header);
  header.writeUInt8(metadata.tasks.some((t) => t.inFlight !== undefined || t.advancing === true) ? VERSION_IN_FLIGHT : VERSION, 4);
  header.writeUInt32LE(body.byteLength, 5);
  header.writeUInt32LE(crc32(body), 9);
  return Buffer.concat([header, body]);
}

export function unpackMetadata(bytes: Buffer, path: string): CheckpointMetadata {
  if (bytes.length < HEADER || !bytes.subarray(0, 4).equals(MAGIC)) throw corrupt(path, 'it is no checkpoint metadata');
  const version = bytes.readUInt8(4);
  if (version !== VERSION && version !== VERSION_IN_FLIGHT)
    throw corrupt(path, `its format version is ${version}, and this Millrace reads versions ${VERSION} and ${VERSION_IN_FLIGHT}`);
  const body = bytes.subarray(HEADER);
  if (body.length !== bytes.readUInt32LE(5)) throw corrupt(path, 'it is truncated');
  if (crc32(body) !== bytes.readUInt32LE(9)) throw corrupt(path, 'its checksum is wrong');
  return decode(body) as CheckpointMetadata;
}

/** The first copy that is whole. One that cannot be reached may be whole: it is damaged only where both are known to be. */
export async function readMetadata(storage: Pick<CheckpointStorage, 'read'>, address: string): Promise<CheckpointMetadata> {
  const faults: unknown[] = [];
  for (const copy of [address, `${address}.copy`]) {
    try {
      const parts: Uint8Array[] = [];
      for await (const part of storage.read(copy)) parts.push(part);
      const metadata = unpackMetadata(Buffer.concat(parts), copy);
      const named = /^chk-(\d+)-a\d+$/.exec(nameIn(address))?.[1];
      if (named !== undefined && metadata.id !== Number(named)) throw corrupt(copy, `it is the metadata of checkpoint ${metadata.id}`);
      return metadata;
    } catch (error) {
      faults.push(error);
    }
  }
  const fault = faults.find((each) => !isDamage(each)) ?? faults[0];
  const { code } = fault as { code?: string };
  if (code === 'ENOENT') throw corrupt(address, 'it does not exist', fault);
  throw code === 'EIO' || code === 'EISDIR' ? corrupt(address, messageOf(fault), fault) : fault;
}

/** Names of all snapshot files that the checkpoint needs, with what is known of them. */
export function filesNamed(metadata: Pick<CheckpointMetadata, 'tasks'>): FileRef[] {
  const files = new Map<string, FileRef>();
  for (const task of metadata.tasks) {
    if (task.keyed !== undefined) for (const file of filesOf(task.keyed.handle)) files.set(file.name, file);
    if (task.inFlight !== undefined) files.set(task.inFlight.file.name, task.inFlight.file);
    for (const operator of Object.values(task.operators)) {
      for (const writer of operator.writers ?? []) for (const { file } of writer.segments) files.set(file.name, file);
    }
  }
  return [...files.values()];
}

/** The operator that an address of what was in flight leads to. */
export function headOf(address: string): string {
  return address.slice(0, address.indexOf(' '));
}

/** By uid of a transactional sink: how many writers it has, counted up to the highest that has anything pending. Their names are numbers from 0. */
export function writersOf(metadata: CheckpointMetadata): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const task of metadata.tasks) {
    for (const [uid, operator] of Object.entries(task.operators))
      for (const { writer } of operator.writers ?? []) counts[uid] = Math.max(counts[uid] ?? 0, Number(writer) + 1);
  }
  return counts;
}

/** The same checkpoint with its files under other names. */
export function withFiles(metadata: CheckpointMetadata, rename: (file: FileRef) => FileRef): CheckpointMetadata {
  const inChain = <R extends BaseRef | DeltaRef>(ref: R): R => renamed(ref, rename);
  const tasks = metadata.tasks.map((task): TaskSnapshot => {
    const operators = Object.entries(task.operators).map(([uid, operator]) => {
      const writers = operator.writers?.map((writer) => ({
        ...writer,
        segments: writer.segments.map((segment) => ({ ...segment, file: rename(segment.file) })),
      }));
      return [uid, writers === undefined ? operator : { ...operator, writers }] as const;
    });
    const { keyed } = task;
    const handle = keyed && { ...keyed.handle, bases: keyed.handle.bases.map(inChain), deltas: keyed.handle.deltas.map(inChain) };
    const inFlight = task.inFlight === undefined ? {} : { inFlight: { ...task.inFlight, file: rename(task.inFlight.file) } };
    return { ...task, operators: Object.fromEntries(operators), keyed: keyed && handle && { ...keyed, handle }, ...inFlight };
  });
  return { ...metadata, tasks };
}

/** The same checkpoint with only what `keeps` says of the state without keys. */
export function withParts(metadata: CheckpointMetadata, keeps: (uid: string, name: string) => boolean): CheckpointMetadata {
  const tasks = metadata.tasks.map((task): TaskSnapshot => {
    const operators = Object.entries(task.operators).map(([uid, operator]) => {
      const parts = operator.parts && Object.fromEntries(Object.entries(operator.parts).filter(([name]) => keeps(uid, name)));
      return [uid, parts === undefined ? operator : { ...operator, parts }] as const;
    });
    return { ...task, operators: Object.fromEntries(operators) };
  });
  return { ...metadata, tasks };
}
