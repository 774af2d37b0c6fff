// What an unaligned checkpoint captures of a task's inputs (semantics 2): batches by reference, pinned, and event time between them; encoded in slices.
//
// Who owns what: the recording owns the pins of what it holds. The task fills it, in its own turn with what waits, and through the channels' recorders with
// what enters later; `TaskSnapshots` has it encoded between batches and stored.
//
// Invariants:
//  L1  A captured batch is pinned until its last record is encoded, or the recording is given up (protocols 16).
//  L2  `file` resolves once everything has come and is encoded, or with undefined where nobody wants it any more.
//  L3  A lane begins with what the channel had said of event time: behind what is recorded, the task stands where an aligned one would have stood.

import { MillraceError } from '../errors.ts';
import { type Batch, unpinBatch } from './batch.ts';
import type { Event, Recorder } from './channel.ts';
import { InFlightWriter } from './in-flight-file.ts';
import type { Io } from './io.ts';
import type { TimeEvent } from './operator.ts';
import type { InFlightSnapshot, Lane } from './snapshot.ts';

/** Records encoded between two looks at the clock. */
const STRIDE = 16;

export interface RecordedFile {
  readonly blocks: readonly Uint8Array[];
  readonly lanes: InFlightSnapshot['lanes'];
}

type Captured = { readonly lane: number; readonly batch: Batch; readonly from: number } | { readonly lane: number; readonly event: TimeEvent };

export class Recording {
  readonly id: number;
  /** Resolves with what is to be stored; undefined: it was given up, or nothing was in flight that a restore must know of. */
  readonly file: Promise<RecordedFile | 'nothing' | undefined>;
  /** The longest slice of encoding, in milliseconds. */
  pauseMs = 0;
  readonly #name: string;
  readonly #io: Io;
  readonly #wake: () => void;
  readonly #lanes: { readonly address: string | undefined; readonly stage: number; records: number }[] = [];
  readonly #captured: Captured[] = [];
  /** Of the first one: the next record, and whether its first frame is written. */
  #at = 0;
  #begun = false;
  #frameOpen = false;
  #writer: InFlightWriter | undefined = new InFlightWriter();
  #sealed = false;
  /** Whether a restore must know of it even where there are no records. */
  #time = false;
  #resolve!: (file: RecordedFile | 'nothing' | undefined) => void;
  #reject!: (error: unknown) => void;

  constructor(id: number, name: string, io: Io, wake: () => void) {
    this.id = id;
    this.#name = name;
    this.#io = io;
    this.#wake = wake;
    this.file = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // Whoever uploads awaits it; one that is given up before has nobody.
    this.file.catch(() => {});
  }

  /** A lane of its own: what stands in one channel, or still stands in a restored one. `heard`: what it has said of time (L3). */
  lane({ address, stage }: Omit<Lane, 'records'>, heard: { readonly watermark: number; readonly idle: boolean }): Recorder {
    const lane = this.#lanes.length;
    this.#lanes.push({ address, stage, records: 0 });
    if (heard.watermark > Number.NEGATIVE_INFINITY) this.#capture({ lane, event: { kind: 'watermark', time: heard.watermark } });
    if (heard.idle) this.#capture({ lane, event: { kind: 'idle' } });
    return {
      batch: (batch, from) => {
        if (this.#writer === undefined || from >= batch.size) return;
        batch.pins += 1;
        this.#lanes[lane]!.records += batch.size - from;
        this.#capture({ lane, batch, from });
      },
      event: (event: Event) => {
        if (event.kind !== 'watermark' && event.kind !== 'idle' && event.kind !== 'active') return;
        this.#time = true;
        this.#capture({ lane, event });
      },
    };
  }

  #capture(captured: Captured): void {
    if (this.#writer === undefined) return;
    this.#captured.push(captured);
    if (this.#captured.length === 1) this.#wake();
  }

  get records(): number {
    return this.#lanes.reduce((sum, lane) => sum + lane.records, 0);
  }

  /** True where `encode` has something to do. */
  get waits(): boolean {
    return this.#writer !== undefined && (this.#captured.length > 0 || this.#sealed);
  }

  /** Every channel's recording is whole. */
  seal(): void {
    this.#sealed = true;
    this.#wake();
  }

  encode(deadline: number): void {
    const begun = this.#io.elapsed();
    try {
      this.#encode(deadline);
    } catch (cause) {
      this.#giveUp();
      const uid = this.#name;
      this.#reject(
        new MillraceError(
          'STATE_NOT_SERIALIZABLE',
          `A record on its way to '${uid}' cannot be stored: ${cause instanceof Error ? cause.message : String(cause)}`,
          { uid, cause },
        ),
      );
    }
    this.pauseMs = Math.max(this.pauseMs, this.#io.elapsed() - begun);
  }

  #encode(deadline: number): void {
    const writer = this.#writer;
    if (writer === undefined) return;
    while (this.#captured.length > 0) {
      const first = this.#captured[0]!;
      if ('event' in first) writer.time(first.lane, first.event);
      else if (!this.#encodeBatch(writer, first, deadline)) return;
      this.#captured.shift();
      if (performance.now() >= deadline) break;
    }
    if (this.#captured.length > 0 || !this.#sealed) return;
    this.#writer = undefined;
    this.#resolve(this.records === 0 && !this.#time ? 'nothing' : { blocks: writer.finish(), lanes: this.#lanes });
  }

  /** True once the whole batch is encoded. */
  #encodeBatch(writer: InFlightWriter, { lane, batch, from }: Extract<Captured, { batch: Batch }>, deadline: number): boolean {
    if (!this.#begun) {
      this.#begun = true;
      this.#at = from;
      writer.begin(lane, batch.keyed, false);
      this.#frameOpen = true;
    }
    for (let n = 1; this.#at < batch.size; n++) {
      if (!this.#frameOpen) {
        writer.begin(lane, batch.keyed, true);
        this.#frameOpen = true;
      }
      const full = writer.record(batch, this.#at);
      this.#at += 1;
      if (full) {
        writer.end();
        this.#frameOpen = false;
      }
      if (n % STRIDE === 0 && performance.now() >= deadline && this.#at < batch.size) return false;
    }
    if (this.#frameOpen) writer.end();
    this.#frameOpen = false;
    this.#begun = false;
    unpinBatch(batch);
    return true;
  }

  /** Nobody waits for it any more. */
  drop(): void {
    if (this.#writer === undefined) return;
    this.#giveUp();
    this.#resolve(undefined);
  }

  #giveUp(): void {
    this.#writer = undefined;
    for (const captured of this.#captured) if ('batch' in captured) unpinBatch(captured.batch);
    this.#captured.length = 0;
  }
}
