// Whether entries of a stream that were not read yet are gone: a pure decision over what Redis says of the stream.
//
// A stream is trimmed from its oldest entry on. As long as an entry at or before the position is there, none behind it was trimmed. Where the last entry read is gone
// too, Redis 7 still tells by counting: it says how many entries were ever added and how many there are, and the position knows how many were added up to it. Where
// that is not known, the answer is the careful one.

/** Of XINFO STREAM; undefined where there is no stream. */
export interface StreamFacts {
  readonly length: number;
  /** Oldest entry. */
  readonly first: string | undefined;
  /** The newest id ever given. */
  readonly last: string;
  /** Entries ever added; undefined before Redis 7. */
  readonly added: number | undefined;
}

export interface StreamPosition {
  /** The last entry read; 0-0: none. */
  readonly id: string;
  /** How many entries were ever added up to it; undefined: not known. */
  readonly count: number | undefined;
}

export const START = '0-0';

/** Undefined: nothing is lost. Else why. */
export function lostSince(position: StreamPosition, facts: StreamFacts | undefined): string | undefined {
  if (facts === undefined) return position.id === START ? undefined : 'the stream is gone';
  const newer = compareIds(facts.last, position.id);
  if (newer < 0) return 'the stream was made anew: its newest id lies before what was read';
  if (newer === 0) return undefined;
  if (facts.first !== undefined && compareIds(facts.first, position.id) <= 0) return undefined;
  if (facts.added === undefined || position.count === undefined) return position.id === START ? undefined : 'the stream was trimmed past what was read';
  const gone = facts.added - facts.length - position.count;
  return gone > 0 ? `${gone} entries behind what was read were trimmed or deleted` : undefined;
}

/** How many entries were ever added up to the position, after `read` entries behind `before` have been read up to `id`. */
export function countAt(id: string, before: number | undefined, read: number, facts: StreamFacts): number | undefined {
  // At the newest entry it is known, also where entries in between had been deleted.
  if (facts.added !== undefined && compareIds(facts.last, id) === 0) return facts.added;
  return before === undefined ? undefined : before + read;
}

/** `milliseconds-sequence`, each up to 64 bits. */
export function compareIds(left: string, right: string): number {
  const [a, b] = [partsOf(left), partsOf(right)];
  return a[0] === b[0] ? sign(a[1] - b[1]) : sign(a[0] - b[0]);
}

function partsOf(id: string): [bigint, bigint] {
  const [ms = '0', sequence = '0'] = id.split('-');
  return [BigInt(ms), BigInt(sequence)];
}

function sign(n: bigint): number {
  return n === 0n ? 0 : n < 0n ? -1 : 1;
}
