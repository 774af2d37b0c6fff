// What every checkpoint registry must do (src/checkpoint/registry.ts), as tests of one that `open` gives. Each test has a job of its own.

import { expect, it } from 'vitest';
import { type Pointer, RESERVED, type Registry } from '../../src/checkpoint/registry.ts';

/** The registry of one job, opened again and again: as by processes one after the other. */
export interface RegistryTrial {
  open(): Promise<Registry>;
  /** Where metadata lies: pointers are given below it. */
  readonly folder: string;
}

export function registryContract(begin: () => Promise<RegistryTrial>): void {
  const pointer = (id: number, folder: string): Pointer => ({
    id,
    path: `${folder}/chk-${id}-a1`,
    bytes: 10 * id,
    startedAt: 1000 + id,
    durationMs: 1.5,
    writers: { out: 2 },
  });
  /** Everything that is asked of the trial is asked of a registry opened for it. */
  const opened = async <R>(trial: RegistryTrial, use: (registry: Registry) => Promise<R>): Promise<R> => {
    const registry = await trial.open();
    try {
      return await use(registry);
    } finally {
      await registry.close();
    }
  };

  it('knows nothing of a job that never ran', async () => {
    const trial = await begin();
    await opened(trial, async (registry) => {
      expect(await registry.attempt()).toBeUndefined();
      expect(await registry.lineage()).toBeUndefined();
      expect(await registry.counter()).toBe(0);
      expect(registry.since).toBeUndefined();
      expect(await registry.checkpoints()).toEqual([]);
      expect(await registry.outcome()).toBeUndefined();
      expect(await registry.result()).toBeUndefined();
      expect(await registry.origin()).toBeUndefined();
      expect(await registry.claimed()).toBeUndefined();
    });
  });

  it('gives each attempt a number of its own, above every earlier one and what is asked for', async () => {
    const trial = await begin();
    expect(await opened(trial, (registry) => registry.nextAttempt())).toBe(1);
    await opened(trial, async (registry) => {
      expect(await registry.attempt()).toBe(1);
      expect(await registry.nextAttempt()).toBe(2);
      expect(await registry.nextAttempt(7)).toBe(8);
      expect(await registry.nextAttempt(3)).toBe(9);
    });
    expect(await opened(trial, (registry) => registry.attempt())).toBe(9);
  });

  it('reserves ids in blocks, durably, and never fewer than before', async () => {
    const trial = await begin();
    await opened(trial, async (registry) => {
      await registry.begin('one', undefined);
      await registry.reserve(1);
      expect(await registry.counter()).toBe(RESERVED);
      await registry.reserve(RESERVED);
      expect(await registry.counter()).toBe(RESERVED);
      await registry.reserve(RESERVED + 1);
      expect(await registry.counter()).toBe(2 * RESERVED);
      expect(registry.since).toBe(0);
    });
    await opened(trial, async (registry) => {
      expect(await registry.counter()).toBe(2 * RESERVED);
      await registry.raise(5);
      expect(await registry.counter()).toBe(2 * RESERVED);
      await registry.raise(100);
      expect(await registry.counter()).toBe(100);
    });
  });

  it('keeps from where on ids belong to a lineage, and forgets it with the lineage', async () => {
    const trial = await begin();
    await opened(trial, async (registry) => {
      await registry.begin('one', undefined);
      await registry.reserve(41);
      expect(registry.since).toBe(40);
    });
    await opened(trial, async (registry) => {
      await registry.begin('one', undefined);
      expect(registry.since).toBe(40);
      await registry.reserve(60);
      expect(registry.since).toBe(40);
    });
    await opened(trial, async (registry) => {
      await registry.begin('two', undefined);
      expect(registry.since).toBeUndefined();
      await registry.reserve(80);
      expect(registry.since).toBe(79);
    });
  });

  it('lists checkpoints with their lineage, the oldest first, until they are removed', async () => {
    const trial = await begin();
    const given = (id: number, lineage: string): unknown => ({ ...pointer(id, trial.folder), lineage });
    await opened(trial, async (registry) => {
      for (const id of [9, 10, 100, 2]) await registry.add(pointer(id, trial.folder), id === 2 ? 'old' : 'new');
      await registry.remove(10);
      await registry.remove(10);
      await registry.remove(77);
    });
    expect(await opened(trial, (registry) => registry.checkpoints())).toEqual([given(2, 'old'), given(9, 'new'), given(100, 'new')]);
  });

  it('keeps lineage, outcome and result, and begins anew without result', async () => {
    const trial = await begin();
    const result = { status: 'finished', restarts: 2 } as const;
    await opened(trial, async (registry) => {
      await registry.begin('one', undefined);
      expect([await registry.lineage(), await registry.outcome()]).toEqual(['one', 'running']);
      await registry.setOutcome('failed');
      await registry.setLineage('other');
      expect([await registry.lineage(), await registry.outcome()]).toEqual(['other', 'failed']);
      await registry.finish(result);
    });
    await opened(trial, async (registry) => {
      expect([await registry.outcome(), await registry.result()]).toEqual(['finished', result]);
      await registry.begin('two', undefined);
      expect([await registry.lineage(), await registry.outcome(), await registry.result()]).toEqual(['two', 'running', undefined]);
    });
  });

  it('keeps what a lineage was forked from, and what is claimed until it is let go', async () => {
    const trial = await begin();
    await opened(trial, (registry) => registry.begin('one', '/sp/7/metadata', '/sp/7'));
    await opened(trial, async (registry) => {
      expect(await registry.origin()).toBe('/sp/7/metadata');
      expect(await registry.claimed()).toEqual({ folder: '/sp/7', lineage: 'one' });
      await registry.begin('one', '/sp/7/metadata');
      expect(await registry.claimed()).toEqual({ folder: '/sp/7', lineage: 'one' });
      await registry.unclaim();
      expect(await registry.claimed()).toBeUndefined();
      await registry.begin('one', undefined);
      expect(await registry.origin()).toBeUndefined();
    });
  });

  it('does what is asked at the same time one after the other', async () => {
    const trial = await begin();
    await opened(trial, async (registry) => {
      const attempts = Promise.all([1, 2, 3, 4].map((id) => registry.add(pointer(id, trial.folder), 'one')));
      await Promise.all([attempts, registry.setOutcome('stopped'), registry.setLineage('one'), registry.raise(50)]);
      expect([await registry.outcome(), await registry.lineage(), await registry.counter()]).toEqual(['stopped', 'one', 50]);
      expect((await registry.checkpoints()).map(({ id }) => id)).toEqual([1, 2, 3, 4]);
    });
  });
}
