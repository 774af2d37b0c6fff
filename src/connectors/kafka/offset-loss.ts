// What to do when the records that a split wants next are not there: pure.
//
// Invariants:
//  L1  Nothing is skipped or read twice unless the user's policy says so, and then it is logged by the caller.
//  L2  A broker's word that an offset is out of range is believed when it says so twice in a row, and what the partition holds agrees: just after a change of leader it
//      may speak of a log that it does not know whole.
//  L3  A split that begins at the earliest record and has read nothing yet has lost nothing, whatever retention took.

import { MillraceError } from '../../errors.ts';

/** `onOffsetLost`: what is done about records that are gone. */
export type LossPolicy = 'fail' | 'earliest' | 'latest';

export interface OutOfRange {
  readonly topic: string;
  readonly partition: number;
  readonly wanted: bigint;
  /** What the partition holds: its oldest record's offset, and the one behind its newest. */
  readonly earliest: bigint;
  readonly latest: bigint;
  /** Nothing was read yet, and the split begins at the earliest record. */
  readonly fromEarliest: boolean;
  /** How often in a row the broker has said it, from 1. */
  readonly times: number;
  readonly policy: LossPolicy;
}

export type LossDecision =
  | { readonly kind: 'again' }
  /** `lost`: what to log; undefined where nothing is. */
  | { readonly kind: 'go on'; readonly offset: bigint; readonly lost: string | undefined }
  | { readonly kind: 'fail'; readonly error: MillraceError };

const WHAT_TO_DO =
  "Raise the topic's retention or shorten outages; to go on without those records set onOffsetLost to 'earliest' or 'latest', or begin anew with restore none.";

export function outOfRange(facts: OutOfRange): LossDecision {
  const { topic, partition, wanted, earliest, latest, fromEarliest, times, policy } = facts;
  if (fromEarliest) return { kind: 'go on', offset: earliest, lost: undefined };
  if (times < 2 || (wanted >= earliest && wanted <= latest)) return { kind: 'again' };
  const reason =
    wanted < earliest
      ? 'the records before its first offset were deleted'
      : 'its log ends before it: records were lost on the brokers, or the offset was never there';
  const lost = `Partition ${partition} of '${topic}' was to be read from offset ${wanted} and holds ${earliest} to ${latest}: ${reason}.`;
  if (policy === 'fail') return { kind: 'fail', error: new MillraceError('KAFKA_OFFSET_LOST', lost, { todo: WHAT_TO_DO }) };
  return { kind: 'go on', offset: policy === 'earliest' ? earliest : latest, lost };
}

export interface Recreated {
  readonly topic: string;
  readonly partition: number;
  readonly offset: bigint;
  /** Of the topic that was read, and of that which has its name now. */
  readonly was: string | undefined;
  readonly is: string | undefined;
  readonly policy: LossPolicy;
}

/** `go on`: at the beginning or at the end of the new topic, both still to be asked for. */
export function recreated({
  topic,
  partition,
  offset,
  was,
  is,
  policy,
}: Recreated):
  | { readonly kind: 'go on'; readonly at: 'earliest' | 'stable'; readonly lost: string }
  | { readonly kind: 'fail'; readonly error: MillraceError } {
  const lost = `The topic '${topic}' was deleted and created anew: partition ${partition} was read up to offset ${offset} of topic id ${was}, and ${is} has its name now.`;
  if (policy !== 'fail') return { kind: 'go on', at: policy === 'earliest' ? 'earliest' : 'stable', lost };
  return {
    kind: 'fail',
    error: new MillraceError('TOPIC_RECREATED', lost, {
      todo: "Offsets of the old topic mean nothing in the new one: set onOffsetLost to 'earliest' to read it from its beginning, or begin anew with restore none.",
    }),
  };
}

/** Of a bounded read: the log does not go as far any more as it went when its end was asked for. */
export function shortened({
  topic,
  partition,
  wanted,
  end,
  policy,
}: {
  readonly topic: string;
  readonly partition: number;
  readonly wanted: bigint;
  readonly end: bigint;
  readonly policy: LossPolicy;
}): { readonly kind: 'end'; readonly lost: string } | { readonly kind: 'fail'; readonly error: MillraceError } {
  const lost = `Partition ${partition} of '${topic}' was to be read up to offset ${wanted}, where it ended before, and ends at ${end} now: records were lost on the brokers.`;
  if (policy !== 'fail') return { kind: 'end', lost };
  return {
    kind: 'fail',
    error: new MillraceError('KAFKA_OFFSET_LOST', lost, {
      todo: "To end where the log ends now set onOffsetLost to 'earliest' or 'latest', or begin anew with restore none.",
    }),
  };
}

/** Of a topic, or of a partition, that the brokers do not know any more. */
export function gone(topic: string, partition: number, offset: bigint): MillraceError {
  return new MillraceError(
    'KAFKA_TOPIC_MISSING',
    `The brokers do not know partition ${partition} of '${topic}' any more, which was read up to offset ${offset}.`,
    {
      todo: "Bring the topic back, or take it out of the source; with onOffsetLost 'earliest' or 'latest' the source waits until there is a topic of that name again.",
    },
  );
}
