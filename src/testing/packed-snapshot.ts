// The snapshot of a harness as one piece of bytes: the metadata of a checkpoint and every file that it names.
//
//   bytes 0–3  'MRHS'    4  version (1)    5–8  CRC32 of the body    then the body: one value of the codec, { metadata, files: [name, bytes][] }

import { join, resolve } from 'node:path';
import { crc32 } from 'node:zlib';
import { decode, encode } from '../../state-backends/index.ts';
import { type CheckpointMetadata, filesNamed, packMetadata, readMetadata } from '../checkpoint/metadata.ts';
import { SnapshotFiles } from '../checkpoint/storage.ts';
import { MillraceError } from '../errors.ts';
import type { OperatorSnapshot } from '../runtime/snapshot.ts';
import { DirectoryStorage } from '../storage/directory.ts';
import type { SimulatedHost } from './simulated-host.ts';

const MAGIC = Buffer.from('MRHS');
const VERSION = 1;
const HEADER = 9;

interface Body {
  readonly metadata: CheckpointMetadata;
  readonly files: readonly (readonly [name: string, content: Uint8Array])[];
}

/** The checkpoint whose metadata lies at `path`. */
export async function packSnapshot(host: SimulatedHost, path: string): Promise<Uint8Array> {
  const storage = new DirectoryStorage('/', host.io);
  const metadata = await readMetadata(storage, path);
  const stored = new SnapshotFiles(storage, join(path, '..', '..'), { io: host.io });
  const files: [string, Uint8Array][] = [];
  for (const file of filesNamed(metadata)) {
    const parts: Uint8Array[] = [];
    for await (const part of stored.read(file)) parts.push(part);
    files.push([file.name, Buffer.concat(parts)]);
  }
  const body = encode({ metadata, files } satisfies Body);
  const header = Buffer.alloc(HEADER);
  MAGIC.copy(header);
  header.writeUInt8(VERSION, 4);
  header.writeUInt32LE(crc32(body), 5);
  return new Uint8Array(Buffer.concat([header, body]));
}

/**
 * Puts a snapshot on the disk and gives the path to restore. `inputs` are the uids of the harness's own sources, which begin anew; and so does time: event time at
 * −∞, processing time at 0.
 */
export function unpackSnapshot(host: SimulatedHost, snapshot: Uint8Array, inputs: readonly string[]): string {
  const { metadata, files } = read(snapshot);
  const folder = resolve('/restored');
  for (const [name, content] of files) host.disk.write(join(folder, 'files', name), content);
  const begun: CheckpointMetadata = {
    ...metadata,
    // As behind a drain, stored event time means nothing.
    drained: true,
    tasks: metadata.tasks.map((task) => ({ ...task, processingTime: 0, operators: without(task.operators, inputs) })),
  };
  const path = join(folder, 'checkpoints', `chk-${metadata.id}-a${metadata.attempt}`);
  host.disk.write(path, packMetadata(begun));
  return path;
}

function without(operators: Readonly<Record<string, OperatorSnapshot>>, uids: readonly string[]): Record<string, OperatorSnapshot> {
  return Object.fromEntries(Object.entries(operators).filter(([uid]) => !uids.includes(uid)));
}

function read(snapshot: Uint8Array): Body {
  const bytes = Buffer.from(snapshot);
  const body = bytes.subarray(HEADER);
  if (bytes.length < HEADER || !bytes.subarray(0, 4).equals(MAGIC) || bytes.readUInt8(4) !== VERSION || bytes.readUInt32LE(5) !== crc32(body))
    throw new MillraceError('SNAPSHOT_CORRUPT', 'These bytes are no snapshot of a harness, or not all of one.', {
      todo: 'Give to `restore` what snapshot() resolved with.',
    });
  return decode(body) as Body;
}
