// What the monitoring job shows: on a terminal a table that is drawn anew each second, elsewhere a few plain lines every ten. It only shows; what it
// has forgotten when the process dies comes again with the next results.

import type { CheckpointInfo, JobEvent, Windowed } from 'millrace';
import type { Sample } from './processes.ts';

interface Row {
  seenAt: number;
  cpu: number;
  memory: number;
  mean?: Windowed<string, number>;
  peak?: Windowed<string, number>;
}

export interface ScreenOptions {
  /** Of the two columns that are results of windows. */
  readonly titles: { readonly mean: string; readonly peak: string };
  readonly output?: NodeJS.WriteStream;
}

const DRAW_MS = 1000;
const PLAIN_MS = 10_000;
const PLAIN_ROWS = 5;
/** A process without a sample for so long has ended. */
const GONE_MS = 5000;

export class Screen {
  readonly #titles: ScreenOptions['titles'];
  readonly #output: NodeJS.WriteStream;
  readonly #rows = new Map<string, Row>();
  #status = 'starting';
  #restoredFrom: CheckpointInfo | undefined;
  #checkpoint: CheckpointInfo | undefined;
  #eventTime = Number.NEGATIVE_INFINITY;
  #timer: NodeJS.Timeout | undefined;
  #printedAt = Number.NEGATIVE_INFINITY;

  constructor({ titles, output = process.stdout }: ScreenOptions) {
    this.#titles = titles;
    this.#output = output;
  }

  /** `onEvent` of the job. */
  event(event: JobEvent): void {
    if (event.type === 'checkpoint') this.#checkpoint = event.checkpoint;
    if (event.type !== 'status') return;
    this.#status = event.status;
    this.#restoredFrom = event.restoredFrom;
    if (event.status === 'running' && this.#timer === undefined) {
      if (this.#output.isTTY) this.#output.write('\x1b[2J');
      this.#timer = setInterval(() => this.#show(), DRAW_MS);
    }
    if (['finished', 'stopped', 'cancelled', 'failed'].includes(event.status)) {
      clearInterval(this.#timer);
      if (this.#timer !== undefined) this.#show(true);
    }
  }

  sample({ process, at, cpu, memory }: Sample): void {
    this.#eventTime = Math.max(this.#eventTime, at);
    const row = this.#rows.get(process);
    if (row === undefined) this.#rows.set(process, { seenAt: at, cpu, memory });
    else Object.assign(row, { seenAt: at, cpu, memory });
  }

  mean(result: Windowed<string, number>): void {
    const row = this.#rows.get(result.key);
    // The window that is open now; an early result is replaced by the next.
    if (row !== undefined && result.end >= (row.mean?.end ?? 0)) row.mean = result;
  }

  peak(result: Windowed<string, number>): void {
    const row = this.#rows.get(result.key);
    if (row === undefined) return;
    // Of the windows that are open, the one that ends first has seen most.
    if (row.peak === undefined || row.peak.end <= this.#eventTime || result.end <= row.peak.end) row.peak = result;
  }

  #show(last = false): void {
    for (const [process, { seenAt }] of this.#rows) if (seenAt < this.#eventTime - GONE_MS) this.#rows.delete(process);
    const now = Date.now();
    if (this.#output.isTTY) this.#output.write(`\x1b[H${this.#lines((this.#output.rows ?? 24) - 4).join('\x1b[K\n')}\x1b[K\n\x1b[J`);
    else if (this.#rows.size > 0 && (last || (now - this.#printedAt >= PLAIN_MS && this.#filled))) {
      this.#printedAt = now;
      this.#output.write(`${this.#lines(PLAIN_ROWS).join('\n')}\n`);
    }
  }

  get #filled(): boolean {
    for (const { mean } of this.#rows.values()) if (mean !== undefined) return true;
    return false;
  }

  #lines(rows: number): string[] {
    const from = this.#restoredFrom;
    const eventTime = Number.isFinite(this.#eventTime) ? clock(this.#eventTime) : '–';
    const checkpoint = this.#checkpoint === undefined ? 'none yet' : `${this.#checkpoint.id} at ${clock(this.#checkpoint.startedAt)}`;
    const begun = from === undefined ? 'began anew' : `resumed from checkpoint ${from.id} of ${clock(from.startedAt)}`;
    const cell = (value: number | undefined, digits: number): string => (value === undefined ? '–' : value.toFixed(digits)).padStart(12);
    const top = [...this.#rows].sort(([, a], [, b]) => (b.mean?.value ?? b.cpu) - (a.mean?.value ?? a.cpu) || b.memory - a.memory).slice(0, rows);
    return [
      `${this.#status}, event time ${eventTime}, checkpoint ${checkpoint}, ${begun}, ${this.#rows.size} processes`,
      `${'PROCESS'.padEnd(28)}${['CPU % now', this.#titles.mean, 'MB now', this.#titles.peak].map((title) => title.padStart(12)).join('')}`,
      ...top.map(
        ([process, { cpu, memory, mean, peak }]) =>
          `${process.slice(0, 27).padEnd(28)}${cell(cpu, 1)}${cell(mean?.value, 1)}${cell(memory / 1e6, 1)}${cell(peak && peak.value / 1e6, 1)}`,
      ),
    ];
  }
}

function clock(at: number): string {
  return new Date(at).toTimeString().slice(0, 8);
}
