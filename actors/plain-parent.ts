// The guardian of every actor that is no supervisor: a child that calls for a restart is started again alone, at most once
// in 5,000 ms; one failure more and it stays dead with that reason, and the parent goes on.

import type { Clock } from './clock.ts';
import type { Guardian, GuardianRequest, Ward } from './guardian.ts';
import { callsForRestart, countRestart, DEFAULT_INTENSITY } from './restart-policy.ts';
import type { TreeNode } from './tree.ts';

export class PlainParent implements Guardian {
  readonly #clock: Clock;
  readonly #stamps = new WeakMap<Ward, number[]>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  open(): void {}

  childEnded(child: Ward): void {
    if (child.state !== 'restarting') return;
    if (child.reason === undefined || !callsForRestart(child.restart, child.reason)) {
      child.retire();
      return;
    }
    const counted = countRestart(this.#stamps.get(child) ?? [], this.#clock.now(), DEFAULT_INTENSITY);
    if (counted.exceeded) {
      child.retire();
      return;
    }
    this.#stamps.set(child, counted.stamps);
    child.start();
  }

  request(request: GuardianRequest): void {
    request.run(this);
  }

  close(): GuardianRequest[] {
    return [];
  }

  nodes(living: readonly Ward[]): TreeNode[] {
    return living.map((child) => child.node());
  }
}
