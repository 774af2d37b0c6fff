// timestamps(): gives records other timestamps, and the stream event time of its own, from one generator in each instance.
//
// Invariants:
//  S1  Of what upstream says about time only the final +∞ goes on; watermarks, idleness and timestamps from here on are the strategy's.
//  S2  The generator is part of the snapshot: what goes on does not fall back after a restore (protocols 13). The least of the old ones counts, since records
//      of each may go to any of the new ones, also at the same parallelism: splits are dealt out anew.
//  S3  The clock of idleness stands still while input waits here: that no record is seen then says nothing.

import type { WatermarkStrategy } from '../graph/node.ts';
import { MAIN } from '../graph/node.ts';
import type { Emit, Operator, OperatorEnvironment, TimeEvent } from '../runtime/operator.ts';
import type { StatePart } from '../runtime/parts.ts';
import { SplitClock, type SplitTime } from '../time/generators.ts';

const TIME = 'time';

export function timestampsOperator(environment: OperatorEnvironment, strategy: WatermarkStrategy<unknown>): Operator {
  return new Timestamps(environment, strategy);
}

class Timestamps implements Operator {
  readonly #environment: OperatorEnvironment;
  readonly #strategy: WatermarkStrategy<unknown>;
  readonly #clock: SplitClock;
  readonly #emit: Emit;
  #idle = false;
  #ended = false;
  /** Since the last look. */
  #records = false;

  constructor(environment: OperatorEnvironment, strategy: WatermarkStrategy<unknown>) {
    this.#environment = environment;
    this.#strategy = strategy;
    this.#emit = environment.output(MAIN)!;
    this.#clock = new SplitClock(strategy, environment.now(), least((environment.restored(TIME) ?? []) as readonly SplitTime[]));
  }

  process(value: unknown, assigned: number): void {
    const { timestamp } = this.#strategy;
    // Called as a method, so that a strategy keeps its `this`.
    const at = timestamp === undefined ? assigned : this.#strategy.timestamp!(value, assigned);
    const clock = this.#clock;
    if (at > clock.maxTimestamp) clock.maxTimestamp = at;
    if (clock.perRecord) clock.onRecord(value, at);
    this.#records = true;
    this.#emit(value, at);
  }

  onTime(event: TimeEvent): void {
    if (event.kind !== 'watermark' || event.time !== Number.POSITIVE_INFINITY) return;
    this.#ended = true;
    this.#wake();
    this.#environment.time(event);
  }

  tick(now: number): void {
    if (this.#ended) return;
    const clock = this.#clock;
    const { backlog, watermark, time } = this.#environment;
    if (this.#records) clock.timer.record(now);
    clock.timer.hold(backlog(), now);
    clock.look(now, this.#records);
    this.#records = false;
    if (!clock.idle) this.#wake();
    if (clock.watermark > watermark()) time({ kind: 'watermark', time: clock.watermark });
    if (clock.idle && !this.#idle) {
      this.#idle = true;
      time({ kind: 'idle' });
    }
  }

  #wake(): void {
    if (!this.#idle) return;
    this.#idle = false;
    this.#environment.time({ kind: 'active' });
  }

  snapshot(): Record<string, StatePart> {
    return { [TIME]: { mode: 'union', items: [this.#clock.store()] } };
  }
}

function least(old: readonly SplitTime[]): SplitTime | undefined {
  if (old.length === 0) return undefined;
  return { maxTimestamp: Math.min(...old.map((t) => t.maxTimestamp)), watermark: Math.min(...old.map((t) => t.watermark)) };
}
