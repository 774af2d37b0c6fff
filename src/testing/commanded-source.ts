// The source behind an input of a harness: it gives what it is told to, when it is told.
//
// What: one split an instance, records dealt out in turn. Event time comes by command too: a generator that all splits share says what the test has said, and a
// batch without records makes every instance look at it (the engine evaluates time after each batch under test).

import type { WatermarkStrategy } from '../graph/node.ts';
import type { Source, SourceBatch, SourceContext } from '../graph/source.ts';
import type { CommandedGenerator } from '../time/generators.ts';

type Batch = SourceBatch<unknown, number>;

/** The way to one split. */
interface Lane {
  readonly batches: Batch[];
  /** Of the read that waits. */
  bell: (() => void) | undefined;
}

export class CommandedSource implements Source<unknown, number, number> {
  readonly bounded = false;
  readonly strategy: WatermarkStrategy<unknown>;
  #lanes: Lane[] = [];
  #next = 0;
  #sent = 0;
  #watermark = Number.NEGATIVE_INFINITY;
  #idle = false;
  #ended = false;

  constructor() {
    const source = this;
    const generator: CommandedGenerator = {
      onRecord: () => undefined,
      onPeriodic: () => source.#watermark,
      get idle() {
        return source.#idle;
      },
    };
    this.strategy = { generator: () => generator };
  }

  // ── commands; each takes effect when the run goes on ──

  push(value: unknown, timestamp: number): void {
    this.active();
    this.#sent += 1;
    this.#send(this.#lanes[this.#next]!, { values: [value], timestamps: [timestamp], position: this.#sent });
    this.#next = (this.#next + 1) % this.#lanes.length;
  }
  watermark(time: number): void {
    this.#idle = false;
    this.#watermark = Math.max(this.#watermark, time);
    this.#look();
  }
  idle(): void {
    this.#idle = true;
    this.#look();
  }
  active(): void {
    if (!this.#idle) return;
    this.#idle = false;
    this.#look();
  }
  end(): void {
    this.#ended = true;
    for (const lane of this.#lanes) lane.bell?.();
  }
  get ended(): boolean {
    return this.#ended;
  }

  #look(): void {
    for (const lane of this.#lanes) this.#send(lane, { values: [], timestamps: [], position: this.#sent });
  }
  #send(lane: Lane, batch: Batch): void {
    lane.batches.push(batch);
    lane.bell?.();
  }

  // ── as a source ──

  async splits({ parallelism }: SourceContext): Promise<number[]> {
    this.#lanes = Array.from({ length: parallelism }, () => ({ batches: [], bell: undefined }));
    return [...this.#lanes.keys()];
  }
  splitId(split: number): string {
    return String(split);
  }
  async *read(split: number, _from: number | undefined, { signal }: { readonly signal: AbortSignal }): AsyncIterable<Batch> {
    const lane = this.#lanes[split]!;
    const ring = (): void => lane.bell?.();
    signal.addEventListener('abort', ring);
    try {
      while (!signal.aborted) {
        const batch = lane.batches.shift();
        if (batch !== undefined) yield batch;
        else if (this.#ended) return;
        else
          await new Promise<void>((resolve) => {
            lane.bell = resolve;
          });
        lane.bell = undefined;
      }
    } finally {
      signal.removeEventListener('abort', ring);
    }
  }
}
