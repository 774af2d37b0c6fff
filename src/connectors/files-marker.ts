// The marker of a file writer, and the folder that fences it.
//
//   <directory>/.millrace/<uid>-<lineage>-<writer>-<attempt>             the marker: what this attempt has committed
//   <directory>/.millrace/<uid>-<lineage>-<writer>-<attempt>.tmp         the next one, being written
//   <directory>/.millrace/<uid>-<lineage>-<writer>-<attempt>.open/       its hidden files, until they are published
//   <directory>/.millrace/<uid>-<lineage>-<writer>-<attempt>.fenced-<n>/ the same, taken away by attempt n
//
// Invariants:
// M1  a marker is replaced as a whole: written beside, synced, renamed, its directory synced. What it names is on disk before it is.
// M2  the files that a marker names exist in the folder of its attempt until a marker of a later attempt, on disk, needs them no more.
// M3  an attempt makes its own folder before it looks for others, and takes the folders of older ones away by renaming them. So of two attempts that
//     open at once the older one either sees the newer and refuses, or loses its folder: it can then neither create nor publish a file any more.

import { join } from 'node:path';
import { MillraceError, messageOf } from '../errors.ts';
import type { Io } from '../runtime/io.ts';

export interface OpenFile {
  /** Its name in the folder of the attempt. */
  readonly file: string;
  /** Where it will be published, below the directory. */
  readonly final: string;
  readonly bucket: string;
  /** Of csv: the columns it was begun with. */
  readonly header?: string;
  /** When it was begun, epoch milliseconds. */
  readonly since: number;
  /** What is committed of it, in bytes. */
  readonly length: number;
}

export interface Marker {
  readonly checkpoint: number;
  /** The number of the next file. */
  readonly next: number;
  readonly open: readonly OpenFile[];
  /** Files of the last commit: name in the folder of the attempt, and final name below the directory. */
  readonly publish: readonly (readonly [hidden: string, final: string])[];
}

export const NO_MARKER: Marker = { checkpoint: 0, next: 1, open: [], publish: [] };

export interface WriterIdentity {
  readonly uid: string;
  readonly lineage: string;
  readonly writer: string;
}

/** What there is of a writer in `.millrace`, of all attempts. */
export interface Trace {
  readonly attempt: number;
  readonly kind: 'marker' | 'unfinished' | 'folder' | 'fenced';
  readonly name: string;
}

const KINDS = { '': 'marker', tmp: 'unfinished', open: 'folder', fenced: 'fenced' } as const;

/** The identity as a file name; '-' separates its parts, so it is escaped inside of the writer. */
export function fileNameOf({ uid, lineage, writer }: WriterIdentity): string {
  return `${uid}-${lineage}-${writer.replace(/[^A-Za-z0-9_]/g, (c) => `~${c.codePointAt(0)?.toString(16)}~`)}`;
}

/** Pure: which of the names in `.millrace` belong to the identity. */
export function tracesOf(identity: string, names: readonly string[]): Trace[] {
  const traces: Trace[] = [];
  for (const name of names) {
    if (!name.startsWith(`${identity}-`)) continue;
    const match = /^(\d+)(?:\.(open|tmp|fenced)(?:-\d+)?)?$/.exec(name.slice(identity.length + 1));
    if (match !== null) traces.push({ attempt: Number(match[1]), kind: KINDS[(match[2] ?? '') as keyof typeof KINDS], name });
  }
  return traces;
}

/** Pure: the newest marker of an attempt up to `attempt`. */
export function newestMarker(traces: readonly Trace[], attempt: number): Trace | undefined {
  let newest: Trace | undefined;
  for (const trace of traces) {
    if (trace.kind === 'marker' && trace.attempt <= attempt && (newest === undefined || trace.attempt > newest.attempt)) newest = trace;
  }
  return newest;
}

export async function readMarker(path: string, io: Io): Promise<Marker> {
  const text = await io.fs.readFile(path, 'utf8');
  try {
    const marker = JSON.parse(text) as Marker;
    if (!Number.isInteger(marker.checkpoint) || !Number.isInteger(marker.next) || !Array.isArray(marker.open) || !Array.isArray(marker.publish))
      throw new Error('fields are missing');
    return marker;
  } catch (error) {
    throw new MillraceError('SNAPSHOT_CORRUPT', `The marker of a file sink, '${path}', is damaged: ${messageOf(error)}.`, {
      todo: 'Compare the directory with the source, remove the marker, and begin anew with restore none.',
      cause: error,
    });
  }
}

export async function writeMarker(folder: string, name: string, marker: Marker, io: Io): Promise<void> {
  const written = join(folder, `${name}.tmp`);
  await io.step('sink.files.marker.write');
  const handle = await io.fs.open(written, 'w');
  try {
    await handle.writeFile(JSON.stringify(marker));
    await handle.sync();
  } finally {
    await handle.close();
  }
  await io.step('sink.files.marker.rename');
  await io.fs.rename(written, join(folder, name));
  await io.step('sink.files.marker.sync');
  await syncDirectory(folder, io);
}

/** Names are durable only when their directory is. Windows has no such call, and needs none. */
export async function syncDirectory(path: string, io: Io): Promise<void> {
  if (process.platform === 'win32') return;
  const handle = await io.fs.open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
