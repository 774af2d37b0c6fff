// Watermark alignment: splits of several sources that wait for the slowest among them, so that nothing downstream has to keep what the fast ones are ahead.
//
// Who owns what: a job has its groups, by name; the reader of a source instance joins one member a split, reports for it whenever it looks at event time, and
// asks before it gives a batch of it to the task. A pause stops records only.
//
// Invariants (protocols 24):
//  L1  The minimum is over members that count: running, active, unfinished, with a first watermark. One that does not count is never paused.
//  L2  A split is paused while its watermark is more than its `maxDrift` above the minimum; whoever waits is woken when the minimum moves.
//  L3  A group that has not moved for three report intervals while each member that counts is paused gives each of them one batch.

/** How often members report, in milliseconds. */
export const REPORT_MS = 200;
const STUCK_MS = 3 * REPORT_MS;

export class AlignmentMember {
  readonly #group: AlignmentGroup;
  readonly maxDrift: number;
  readonly wake: () => void;
  /** Undefined: does not count (L1). */
  watermark: number | undefined;
  /** It was told to wait when it asked last. */
  waits = false;
  /** It may have one batch although it is ahead (L3). */
  released = false;

  constructor(group: AlignmentGroup, maxDrift: number, wake: () => void) {
    this.#group = group;
    this.maxDrift = maxDrift;
    this.wake = wake;
  }

  /** −∞ or undefined: it does not count now. Takes effect with the group's `settle`. */
  report(watermark: number | undefined): void {
    this.watermark = watermark === Number.NEGATIVE_INFINITY ? undefined : watermark;
    if (this.watermark === undefined) this.waits = false;
  }

  /** True where a split that stands at `watermark` gets no records now. */
  paused(watermark: number): boolean {
    this.waits = this.watermark !== undefined && !this.released && watermark > this.#group.least + this.maxDrift;
    return this.waits;
  }

  leave(): void {
    this.#group.leave(this);
  }
}

export class AlignmentGroup {
  readonly #members = new Set<AlignmentMember>();
  #movedAt = Number.NEGATIVE_INFINITY;
  /** +∞ where nobody counts. */
  least = Number.POSITIVE_INFINITY;

  join(maxDrift: number, wake: () => void): AlignmentMember {
    const member = new AlignmentMember(this, maxDrift, wake);
    this.#members.add(member);
    return member;
  }

  leave(member: AlignmentMember): void {
    if (this.#members.delete(member)) this.#move(this.#movedAt);
  }

  /** After reports. True: it was stuck, and lets each member have one batch. */
  settle(now: number): boolean {
    if (this.#move(now) || now - this.#movedAt < STUCK_MS) return false;
    const counting = [...this.#members].filter((m) => m.watermark !== undefined);
    if (counting.length === 0 || !counting.every((m) => m.waits)) return false;
    this.#movedAt = now;
    for (const member of counting) member.released = true;
    this.#wake();
    return true;
  }

  #move(now: number): boolean {
    let least = Number.POSITIVE_INFINITY;
    for (const { watermark } of this.#members) if (watermark !== undefined && watermark < least) least = watermark;
    if (least === this.least) return false;
    this.least = least;
    this.#movedAt = now;
    this.#wake();
    return true;
  }

  #wake(): void {
    for (const wake of new Set([...this.#members].filter((m) => m.waits).map((m) => m.wake))) wake();
  }
}

/** Those of a job. */
export class AlignmentGroups {
  readonly #groups = new Map<string, AlignmentGroup>();

  of(name: string): AlignmentGroup {
    let group = this.#groups.get(name);
    if (group === undefined) {
      group = new AlignmentGroup();
      this.#groups.set(name, group);
    }
    return group;
  }
}
