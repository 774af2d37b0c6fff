// How the windows of an operator are defined, as snapshots remember it: state that was made with another definition is refused.
//
// Invariant D1: what may change between a snapshot and its restore is what no stored row depends on: lateness, gaps of sessions, triggers.

import { MillraceError } from '../errors.ts';
import type { WindowSpec } from '../graph/node.ts';
import type { OperatorEnvironment } from '../runtime/operator.ts';
import type { StatePart } from '../runtime/parts.ts';

const PART = 'windows';

/** `layout`: how the contents are kept. */
function described({ shape, time, merges, makes }: WindowSpec, layout: string): string {
  const windows =
    shape.kind === 'fixed'
      ? `${shape.size === shape.slide ? `tumbling(${shape.size})` : `sliding(${shape.size}, ${shape.slide})`}${shape.offset === 0 ? '' : ` shifted by ${shape.offset}`}`
      : shape.kind === 'assigned'
        ? `windows of an own assigner${merges ? ' that merges' : ''}`
        : shape.kind;
  const two = makes.kind === 'join' || makes.kind === 'coGroup';
  return `${windows} in ${time} time, ${layout}${two ? ' of two inputs' : ''}`;
}

/** Compares at the start and is part of every snapshot. */
export class WindowDefinition {
  readonly #parts: Readonly<Record<string, StatePart>>;

  constructor(environment: OperatorEnvironment, spec: WindowSpec, layout: string) {
    const { uid } = environment;
    const mine = described(spec, layout);
    for (const stored of environment.restored(PART) ?? []) {
      if (stored === mine) continue;
      throw new MillraceError('SNAPSHOT_INCOMPATIBLE', `The windows of '${uid}' were ${String(stored)} and are ${mine} now.`, {
        uid,
        todo: 'Give the changed window another uid, or the old definition back.',
      });
    }
    this.#parts = { [PART]: { mode: 'union', items: [mine] } };
  }

  snapshot(): Readonly<Record<string, StatePart>> {
    return this.#parts;
  }
}

/** Of a Date, and of windows: beyond it sums of milliseconds are no longer exact. */
export const LAST_TIME = 8.64e15;

/** Of a record of event time whose timestamp is none, or none of a Date. */
export function noTimestamp(uid: string, timestamp: number): MillraceError {
  if (Number.isNaN(timestamp))
    return new MillraceError('TIMESTAMP_MISSING', `A record without a timestamp came to the event-time window '${uid}'.`, {
      uid,
      todo: 'Give the source a watermark strategy with a timestamp function.',
    });
  return new MillraceError('TIMESTAMP_MISSING', `A record came to the event-time window '${uid}' with the timestamp ${timestamp}, which is no time.`, {
    uid,
    todo: 'Timestamps are epoch milliseconds, up to ±8.64e15. Results of windows without an end have none: put timestamps() behind them.',
  });
}
