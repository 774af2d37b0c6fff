// What of a registry is seen from outside while leaders come and go: which checkpoint was registered by whom, and when, as ZooKeeper orders it.

/** Of a checkpoint: the epoch that its leader had, and the transaction that registered it. */
export interface Registration {
  readonly id: number;
  readonly epoch: number;
  readonly at: bigint;
}

/** The transaction in which an epoch was, at the latest, taken; those that were not seen are missing. */
export type Epochs = ReadonlyMap<number, bigint>;

/** Sentences about registrations by a leader that had been deposed; none where all is well. */
export function deposedRegistrations(registrations: readonly Registration[], begun: Epochs): string[] {
  const wrong: string[] = [];
  let before: Registration | undefined;
  for (const each of registrations.toSorted((a, b) => a.id - b.id)) {
    if (before !== undefined && each.epoch < before.epoch)
      wrong.push(`checkpoint ${each.id} was registered in epoch ${each.epoch}, behind checkpoint ${before.id} of epoch ${before.epoch}`);
    for (const [epoch, at] of begun)
      if (epoch > each.epoch && at < each.at) wrong.push(`checkpoint ${each.id} of epoch ${each.epoch} was registered when epoch ${epoch} had begun`);
    before = each;
  }
  return wrong;
}
