// What the workloads must give, computed plainly over the whole input; and the committed outputs of another engine for the whole of it. Of q0 and q1, whose
// outputs are as large as their input, there are the first thousand rows and the checksum of all.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { rowsOf } from './nexmark-oracle.ts';
import type { Workload } from './workloads.ts';

const file = (name: string): Buffer => readFileSync(fileURLToPath(new URL(`../data/${name}`, import.meta.url)));
const data = (name: string): string => gunzipSync(file(`${name}.ndjson.gz`)).toString('utf8');
const lines = (text: string): string[] => text.split('\n').slice(0, -1);

let events: string[] | undefined;

/** The whole input, or so many records of it: of words the first; of metrics all of the first hosts, so that as many windows end. */
export function inputOf(workload: Workload, records = 100_000): string[] {
  if (workload === 'wc') return lines(data('words-100k')).slice(0, records);
  if (workload !== 'cpu') {
    events ??= lines(data('events-100k'));
    return events.slice(0, records);
  }
  return lines(data('metrics-100k')).filter((line) => Number(/host-(\d+)/.exec(line)![1]) < records / 100);
}

/** The reference output for the whole input: one row a line, sorted by bytes. Of q0 and q1 what a plain computation gives, where its beginning agrees. */
export function referenceOf(workload: Workload): string {
  if (workload === 'wc' || workload === 'cpu') return data(`${workload}-expected`);
  if (workload !== 'q0' && workload !== 'q1') return file(`nexmark/${workload}.ndjson`).toString('utf8');
  const whole = expectedOf(workload, inputOf(workload));
  if (!whole.startsWith(data(`nexmark/${workload}.first1000`))) throw new Error(`The plain computation of ${workload} gives other rows than the reference.`);
  return whole;
}

/** Sizes and checksums of the reference outputs, as they were published with them. */
export const REFERENCE = (JSON.parse(file('nexmark/SHA256-100k.json').toString('utf8')) as { outputs: Record<Workload, { count: number; sha256: string }> })
  .outputs;

export function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

/** Rows in the canonical form: sorted by bytes (all is ASCII), each with its line end. */
export function canonical(rows: readonly string[]): string {
  return [...rows]
    .sort()
    .map((row) => `${row}\n`)
    .join('');
}

/** What the workload must give for these input lines, in the canonical form. */
export function expectedOf(workload: Workload, input: readonly string[]): string {
  if (workload === 'wc') return canonical(finalCounts(input));
  return canonical(workload === 'cpu' ? cpuRows(input) : rowsOf(workload, input));
}

/** Every row that wc must write for these input lines, updates included, in the canonical form. */
export function updatesOf(input: readonly string[]): string {
  const counts = new Map<string, number>();
  const rows = input.map((line) => {
    const { word } = JSON.parse(line) as { word: string };
    const count = (counts.get(word) ?? 0) + 1;
    counts.set(word, count);
    return JSON.stringify({ word, count });
  });
  return canonical(rows);
}

function finalCounts(input: readonly string[]): string[] {
  const counts = new Map<string, number>();
  for (const line of input) {
    const { word } = JSON.parse(line) as { word: string };
    counts.set(word, (counts.get(word) ?? 0) + 1);
  }
  return [...counts].map(([word, count]) => JSON.stringify({ word, count }));
}

const MINUTE = 60_000;

function cpuRows(input: readonly string[]): string[] {
  const averages = new Map<string, { host: string; start: number; sum: number; count: number }>();
  // By host, then by minute: the largest of what fell into it.
  const minutes = new Map<string, Map<number, number>>();
  for (const line of input) {
    const { host, cpu, mem, ts } = JSON.parse(line) as { host: string; cpu: number; mem: number; ts: number };
    const start = ts - (ts % (5 * MINUTE));
    const average = averages.get(`${host} ${start}`);
    if (average === undefined) averages.set(`${host} ${start}`, { host, start, sum: cpu, count: 1 });
    else {
      average.sum += cpu;
      average.count += 1;
    }
    const ofHost = minutes.get(host) ?? new Map<number, number>();
    minutes.set(host, ofHost);
    const minute = ts - (ts % MINUTE);
    ofHost.set(minute, Math.max(mem, ofHost.get(minute) ?? mem));
  }
  const maxima: { host: string; start: number; max: number }[] = [];
  for (const [host, ofHost] of minutes) {
    const windows = new Map<number, number>();
    for (const [minute, max] of ofHost) {
      for (let start = minute - 59 * MINUTE; start <= minute; start += MINUTE) windows.set(start, Math.max(max, windows.get(start) ?? max));
    }
    for (const [start, max] of windows) maxima.push({ host, start, max });
  }
  return [
    ...[...averages.values()].map(({ host, start, sum, count }) =>
      JSON.stringify({ kind: 'avg5m', host, windowStart: start, windowEnd: start + 5 * MINUTE, sum, count, avg: Math.floor(sum / count) }),
    ),
    ...maxima.map((row) => JSON.stringify({ kind: 'max60m', host: row.host, windowStart: row.start, windowEnd: row.start + 60 * MINUTE, max: row.max })),
  ];
}
