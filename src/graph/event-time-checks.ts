// What can be known of windows and joins before a job runs, and is refused then.
//
// What: pure functions over nodes. The settings of a window itself are checked where it is made; here is what depends on the rest of the graph.

import { MillraceError } from '../errors.ts';
import type { Node, Step } from './node.ts';
import { assignsTimestamps } from './source.ts';

export function checkEventTime(nodes: readonly Node[]): void {
  for (const node of nodes) {
    const { step, uid } = node;
    if (step.kind === 'intervalJoin') {
      const source = withoutTimestamps(node);
      if (source !== undefined)
        throw new MillraceError('TIMESTAMP_MISSING', `'${uid}' joins by event time, and the records of '${source.uid}' have no timestamps.`, {
          uid: uid!,
          todo: `Give the source '${source.uid}' a watermark strategy with a timestamp function, or put timestamps() behind it.`,
        });
    }
    if (step.kind !== 'window') continue;
    if (step.spec.all && node.parallelism !== 1)
      throw new MillraceError('PLAN_INVALID', `'${uid}' has windows over all records, and a parallelism of ${node.parallelism}.`, {
        uid: uid!,
        todo: 'Take the parallelism away, or make windows of keys.',
      });
    if (step.spec.time !== 'event' || step.spec.shape.kind === 'global') continue;
    const source = withoutTimestamps(node);
    if (source !== undefined)
      throw new MillraceError('TIMESTAMP_MISSING', `'${uid}' has windows of event time, and the records of '${source.uid}' have no timestamps.`, {
        uid: uid!,
        todo: `Give the source '${source.uid}' a watermark strategy with a timestamp function, put timestamps() behind it, or use windows of processing time.`,
      });
  }
}

/** Steps whose results have the timestamps of their records. Of the others it is not known, or they have made sure of it. */
const PASSING: ReadonlySet<Step['kind']> = new Set(['map', 'filter', 'flatMap', 'split', 'reduce', 'aggregate', 'asyncMap']);

/** A source whose records come to this node without timestamps. */
function withoutTimestamps(node: Node): Node | undefined {
  for (const { node: from } of node.inputs) {
    const { step } = from;
    if (step.kind === 'source') {
      if (!assignsTimestamps(step.source) && step.strategy?.timestamp === undefined) return from;
      continue;
    }
    const source = PASSING.has(step.kind) ? withoutTimestamps(from) : undefined;
    if (source !== undefined) return source;
  }
  return undefined;
}
