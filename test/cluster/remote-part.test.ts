import { expect, it } from 'vitest';
import type { PartRequest } from '../../src/cluster/host-mail.ts';
import { type PartHost, RemotePart } from '../../src/cluster/remote-part.ts';
import type { PartOptions } from '../../src/execution/region-part.ts';

it('a part gives the figures of its own tasks, and none of other regions or of tasks that its host had before', async () => {
  const sample = (name: string, labels: Record<string, string>, value: number) => ({ name, labels: { job: 'j', ...labels }, value });
  const own = [sample('recordsIn', { task: 'sum-0' }, 1), sample('mine', { uid: 'sum', subtask: '0' }, 2)];
  const others = [
    sample('recordsIn', { task: 'other-0' }, 3),
    sample('mine', { uid: 'other', subtask: '0' }, 4),
    // It has moved to host 2, which gives its own.
    sample('mine', { uid: 'sum', subtask: '1' }, 5),
  ];
  const host: PartHost = { name: 'host', tell: () => {}, ask: async () => [...own, ...others], look: async () => undefined, forget: () => {} };
  const placement = new Map([
    ['sum-0', 1],
    ['sum-1', 2],
  ]);
  const part = new RemotePart(host, 1, { region: 0, attempt: 1, placement } as unknown as PartRequest, {} as PartOptions);
  expect(await part.samples()).toEqual(own);
});
