// What state with a ttl is counted by offline: processing time is that of the machine, event time stands where the operator's stood in the snapshot.

import { EventClock, type ExpiryClock } from '../../state-backends/index.ts';
import type { CheckpointMetadata } from '../checkpoint/metadata.ts';
import type { Io } from '../runtime/io.ts';

export interface StoredClocks {
  readonly clock: ExpiryClock;
  readonly eventClock: EventClock;
}

export function storedClocks({ tasks, drained }: CheckpointMetadata, uid: string, io: Io): StoredClocks {
  const watermarks = tasks.filter(({ keyed, operators }) => keyed?.uid === uid || operators[uid] !== undefined).map(({ watermark }) => watermark);
  const eventClock = new EventClock(() => Number.NaN);
  if (!drained && watermarks.length > 0) eventClock.advance(Math.min(...watermarks));
  return { clock: { now: () => io.clock.now(), changed() {} }, eventClock };
}
