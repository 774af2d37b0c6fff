// The record of an edit that goes into the metadata of what it has made: who, when, with what, of which savepoint, and what has changed.

import { createHash } from 'node:crypto';
import { createRequire } from 'node:module';
import { hostname, userInfo } from 'node:os';
import { type OperatorEdit, type SavepointEdit, unpackMetadata } from '../checkpoint/metadata.ts';
import { corrupt, isDamage } from '../checkpoint/storage.ts';
import type { CheckpointStorage } from '../graph/storage.ts';

export interface AuditFacts {
  readonly at: number;
  readonly by: string | undefined;
  readonly note: string | undefined;
  /** Undefined: it began with nothing. */
  readonly from: SavepointEdit['from'];
  readonly operators: readonly OperatorEdit[];
}

export function auditOf({ at, by, note, from, operators }: AuditFacts): SavepointEdit {
  return {
    at,
    what: `edit: ${operators.map(saidOf).join(', ') || 'nothing'}`,
    by: by ?? whoAmI(),
    tool: `millrace ${versionOf()}`,
    ...(from === undefined ? {} : { from }),
    operators,
    ...(note === undefined ? {} : { note }),
  };
}

/** In a few words. Pure. */
export function saidOf({ uid, change, from, states, written, deleted }: OperatorEdit): string {
  const of = states.length === 0 ? '' : ` (${states.join(', ')})`;
  const rows = [...(written > 0 ? [`${written} rows written`] : []), ...(deleted > 0 ? [`${deleted} deleted`] : [])].join(', ');
  const what = change === 'renamed' ? `'${from}' renamed to '${uid}'` : `'${uid}' ${change}${of}`;
  return rows === '' ? what : `${what}: ${rows}`;
}

/** SHA-256 of the metadata file at that path, of the copy of it that is whole. */
export async function checksumOf(path: string, storage: Pick<CheckpointStorage, 'read'>): Promise<string> {
  let first: unknown;
  for (const each of [path, `${path}.copy`]) {
    try {
      const parts: Uint8Array[] = [];
      for await (const part of storage.read(each)) parts.push(part);
      const bytes = Buffer.concat(parts);
      unpackMetadata(bytes, each);
      return createHash('sha256').update(bytes).digest('hex');
    } catch (error) {
      if (!isDamage(error)) throw error;
      first ??= error;
    }
  }
  throw corrupt(path, 'it has gone, or was damaged, while it was read', first);
}

function whoAmI(): string {
  let user: string;
  try {
    user = userInfo().username;
  } catch {
    // A user without a name, as in containers.
    user = String(process.getuid?.() ?? 'unknown');
  }
  return `${user}@${hostname()}`;
}

function versionOf(): string {
  return (createRequire(import.meta.url)('millrace/package.json') as { version: string }).version;
}
