// What was in flight when the snapshot was taken, in a task that was restored: it comes before anything that upstream sends (semantics 2).
//
// What: each lane is what one channel of one old instance held, records and event time in order. Lanes are taken in the order of their time, so that a record is
// judged by the watermark that its own lane had when it stood there; the least of all lanes is what the task hears. When all are empty the task stands where it
// would have stood after an aligned checkpoint.
//
// Invariants:
//  Z1  Of a lane, elements come in order. An old instance that was itself recovering has stages: all lanes of one are emptied before the next begins.
//  Z2  Time never goes back; a lane that is empty still counts with the last that it said, until its instance's next stage takes its place.
//  Z3  A task whose inputs come from elsewhere now (`held`) hears nothing of the lanes' time.

import type { Batch } from './batch.ts';
import type { Recorder } from './channel.ts';
import type { LaneElement } from './in-flight-file.ts';

export interface RestoredLane {
  /** The old instance. */
  readonly from: number;
  readonly stage: number;
  /** Undefined: it brings no records, only time. */
  readonly address: string | undefined;
  /** They are for the right input. */
  readonly right: boolean;
  readonly elements: readonly LaneElement[];
}

interface Standing {
  readonly lane: RestoredLane;
  at: number;
  time: number;
  idle: boolean;
}

/** What comes next: records, or a watermark that has grown. */
export type Restored = { readonly batch: Batch; readonly right: boolean } | { readonly watermark: number };

export class RestoredLanes {
  /** As far as time has come here. */
  watermark: number;
  readonly #held: boolean;
  /** Of each old instance, the stages that have not begun. */
  readonly #stages = new Map<number, RestoredLane[][]>();
  /** Of each old instance, the lanes of the stage that it is in. */
  readonly #current = new Map<number, Standing[]>();
  #last: Standing | undefined;

  constructor(lanes: readonly RestoredLane[], watermark: number, held: boolean) {
    this.watermark = watermark;
    this.#held = held;
    for (const from of new Set(lanes.map((lane) => lane.from))) {
      const own = lanes.filter((lane) => lane.from === from);
      const stages = [...new Set(own.map((lane) => lane.stage))].sort((a, b) => a - b);
      this.#stages.set(
        from,
        stages.map((stage) => own.filter((lane) => lane.stage === stage)),
      );
      this.#begin(from, Number.NEGATIVE_INFINITY);
    }
  }

  #begin(from: number, time: number): void {
    const next = this.#stages.get(from)!.shift();
    if (next !== undefined)
      this.#current.set(
        from,
        next.map((lane) => ({ lane, at: 0, time, idle: false })),
      );
  }

  /** Undefined: all are empty. */
  next(): Restored | undefined {
    for (;;) {
      const standing = this.#earliest();
      if (standing === undefined) return undefined;
      this.#last = standing;
      const element = standing.lane.elements[standing.at]!;
      standing.at += 1;
      if (!('kind' in element)) return { batch: element, right: standing.lane.right };
      if (element.kind === 'watermark') standing.time = Math.max(standing.time, element.time);
      else standing.idle = element.kind === 'idle';
      const time = this.#least();
      if (time <= this.watermark) continue;
      this.watermark = time;
      return { watermark: time };
    }
  }

  #earliest(): Standing | undefined {
    let first: Standing | undefined;
    for (const from of this.#current.keys()) {
      for (let lanes = this.#current.get(from)!; this.#stages.get(from)!.length > 0 && lanes.every(isEmpty); lanes = this.#current.get(from)!)
        this.#begin(from, Math.min(...lanes.map(({ time }) => time)));
      for (const standing of this.#current.get(from)!) if (!isEmpty(standing) && (first === undefined || standing.time < first.time)) first = standing;
    }
    return first;
  }

  /** Over the lanes that are not idle and have not ended: what an end says comes again from upstream, behind all lanes. */
  #least(): number {
    if (this.#held) return Number.NEGATIVE_INFINITY;
    const all = [...this.#current.values()].flat();
    const speaking = all.filter(({ idle, time }) => !idle && time < Number.POSITIVE_INFINITY);
    return speaking.length > 0 ? Math.min(...speaking.map(({ time }) => time)) : Number.NEGATIVE_INFINITY;
  }

  /**
   * What has not been taken yet, for a snapshot that is taken meanwhile; `batch` is the one that is being processed, from its record `at`. `open` makes a lane
   * of the recording. Gives the stage of what comes behind.
   */
  record(
    current: { readonly batch: Batch; readonly at: number } | undefined,
    open: (lane: { readonly address: string | undefined; readonly stage: number }, heard: { readonly watermark: number; readonly idle: boolean }) => Recorder,
  ): number {
    let stages = 0;
    for (const [from, lanes] of this.#current) {
      // Stages of other instances follow one another in theirs; all are of one instance from now on.
      const coming = [lanes, ...this.#stages.get(from)!.map((next) => next.map((lane) => ({ lane, at: 0, time: Number.NEGATIVE_INFINITY, idle: false })))];
      for (const [stage, standings] of coming.entries()) {
        stages = Math.max(stages, stage + 1);
        for (const { lane, at, time, idle } of standings) {
          const recorder = open({ address: lane.address, stage }, { watermark: time, idle });
          if (current !== undefined && this.#last?.lane === lane) recorder.batch(current.batch, current.at);
          for (const element of lane.elements.slice(at)) {
            if ('kind' in element) recorder.event(element);
            else recorder.batch(element, 0);
          }
        }
      }
    }
    return stages;
  }
}

function isEmpty({ lane, at }: Standing): boolean {
  return at === lane.elements.length;
}
