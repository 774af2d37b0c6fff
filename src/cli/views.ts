// What the look commands print: pure functions from answers of a door to lines.

import type { SavepointEdit } from '../checkpoint/metadata.ts';
import type { CheckpointInfo } from '../graph/job.ts';
import type { FoundJob } from './door-client.ts';

/** As the door answers; a later Millrace may say more. */
export interface ShownNode {
  readonly name: string;
  readonly kind: string;
  readonly state: string;
  readonly restarts: number;
  readonly mailbox: number;
  readonly metrics?: Record<string, number | null>;
  readonly children: readonly ShownNode[];
}

/** Columns as wide as they need to be; numbers are those that begin with a digit, and stand to the right. */
export function table(rows: readonly (readonly string[])[]): string[] {
  const [head = []] = rows;
  const widths = head.map((_, column) => Math.max(...rows.map((row) => [...(row[column] ?? '')].length)));
  const right = head.map((_, column) => column > 0 && rows.slice(1).every((row) => /^[\d−–-]/.test(row[column] ?? '') || row[column] === ''));
  return rows.map((row) =>
    row
      .map((cell, column) => {
        const pad = ' '.repeat(widths[column]! - [...cell].length);
        return right[column] === true ? pad + cell : cell + pad;
      })
      .join('  ')
      .trimEnd(),
  );
}

/** What was done to a snapshot without a job, oldest first. */
export function editLines(edits: readonly SavepointEdit[]): string[] {
  return edits.flatMap(({ at, what, by, tool, from, note }) => {
    const who = [...(by === undefined ? [] : [`by ${by}`]), ...(tool === undefined ? [] : [`with ${tool}`])].join(' ');
    return [
      `edited ${instant(at)}${who === '' ? '' : ` ${who}`}: ${what.replace(/^edit: /, '')}`,
      ...(from === undefined ? [] : [`  made of snapshot ${from.id} in ${from.path} (SHA-256 ${from.checksum})`]),
      ...(note === undefined ? [] : [`  note: ${note}`]),
    ];
  });
}

export function jobLines(jobs: readonly FoundJob[], now: number): string[] {
  return table([
    ['JOB', 'ID', 'STATUS', 'PROCESS', 'SINCE', 'DOOR'],
    ...jobs.map((j) => [j.name, j.id, j.status, String(j.pid), ago(now - j.startedAt), j.url]),
  ]);
}

export function treeLines(root: ShownNode): string[] {
  const rows: string[][] = [['NAME', 'STATE', 'RESTARTS', 'MAILBOX', 'IN', 'OUT', 'WATERMARK', 'CHECKPOINT']];
  const visit = (node: ShownNode, lead: string, branch: string): void => {
    const { metrics = {} } = node;
    const cell = (name: string): string => (metrics[name] === undefined ? '' : metrics[name] === null ? '–' : String(metrics[name]));
    const watermark = metrics.watermark;
    rows.push([
      `${lead}${branch}${node.name}`,
      node.state,
      String(node.restarts),
      String(metrics.mailbox ?? node.mailbox),
      cell('recordsIn'),
      cell('recordsOut'),
      watermark === undefined ? '' : watermark === null ? '–' : instant(watermark),
      cell('lastCheckpoint'),
    ]);
    const inner = lead + (branch === '' ? '' : branch === '└ ' ? '  ' : '│ ');
    node.children.forEach((child, i) => {
      visit(child, inner, i === node.children.length - 1 ? '└ ' : '├ ');
    });
  };
  visit(root, '', '');
  return table(rows);
}

export function checkpointLines(checkpoints: readonly CheckpointInfo[]): string[] {
  if (checkpoints.length === 0) return ['No checkpoint is retained yet.'];
  return table([
    ['CHECKPOINT', 'TAKEN', 'MS', 'BYTES', 'FILE'],
    ...checkpoints.map((c) => [String(c.id), instant(c.startedAt), String(Math.round(c.durationMs)), String(c.bytes), c.path]),
  ]);
}

/** UTC, as event time is; far ends of time have no date. */
function instant(at: number): string {
  const date = new Date(at);
  return Number.isNaN(date.getTime()) ? String(at) : date.toISOString().slice(0, 19).replace('T', ' ');
}

function ago(ms: number): string {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 60) return `${s}s`;
  if (s < 3600) return `${Math.floor(s / 60)}m ${s % 60}s`;
  return `${Math.floor(s / 3600)}h ${Math.floor((s % 3600) / 60)}m`;
}
