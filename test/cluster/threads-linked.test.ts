import { fileURLToPath, pathToFileURL } from 'node:url';
import { job } from 'millrace';
import { createSystem } from 'millrace/actors';
import { beforeAll, expect, it } from 'vitest';
import { definitionOf } from '../../src/api/job.ts';
import { Threads } from '../../src/cluster/threads.ts';
import type { PartOptions } from '../../src/execution/region-part.ts';
import { SILENT } from '../../src/graph/context.ts';
import { buildGraph } from '../../src/graph/plan.ts';
import { systemIo } from '../../src/runtime/io.ts';
import { bundled } from '../bundled.ts';
import { ensureBuilt } from '../e2e/trial.ts';
import { Feed, rejection } from '../protocols/lab.ts';
import { acting } from './acting-job.ts';

beforeAll(ensureBuilt, 180_000);

function region(attempt: number, failed: (error: Error) => void = () => {}, of = acting, parallelism = 2): PartOptions {
  return {
    job: 'acting',
    graph: buildGraph(definitionOf(of).build(), { parallelism, version: undefined }),
    number: 0,
    attempt,
    lineage: 'l',
    maxParallelism: 128,
    blocking: false,
    watermarkEachBatch: false,
    metadata: undefined,
    lastCheckpoint: () => undefined,
    usedIds: { after: undefined, to: 0 },
    io: systemIo(),
    log: SILENT,
    reports: () => ({ opened() {}, failed: ({ error }: { readonly error: Error }) => failed(error) }),
  } as unknown as PartOptions;
}

it('threads that live and whose link is gone take the region down that has tasks at both, and are linked anew for the next attempt', async () => {
  const cut = new Int32Array(new SharedArrayBuffer(8));
  const entry = pathToFileURL(bundled(fileURLToPath(new URL('./acting-thread.ts', import.meta.url))));
  const threads = new Threads({ count: 2, entry, data: { cut }, io: systemIo(), log: SILENT });
  const system = createSystem({ name: 'leader', onFailure: () => {} });
  const broken = new Promise<Error>((resolve, reject) => {
    threads.parts(region(1, resolve)).then((parts) => {
      for (const each of parts) system.spawn(each.children[0]!.start, { name: each.children[0]!.id });
      Atomics.store(cut, 0, 1);
    }, reject);
  });
  expect(await broken).toMatchObject({ code: 'LINK_LOST', message: expect.stringContaining('The link between thread-') });
  await system.stop();
  const again = await threads.parts(region(2));
  expect(again).toHaveLength(2);
  await Promise.all(again.map((each) => each.close()));
  await threads.close();
});

it('a thread that has died while another one was loaded is told of to the parts that were to run there', async () => {
  const entry = new URL('./starting-thread.mjs', import.meta.url);
  const counters = (of: number): Int32Array => new Int32Array(new SharedArrayBuffer(4 * of));
  // Its one task is placed at the thread that dies.
  const alone = job('alone', (env) => {
    env.source('in', new Feed()).forEach('out', () => {});
  });
  const data = { fails: -1, dies: 0, started: counters(2), joined: counters(6) };
  const threads = new Threads({ count: 2, entry, data, io: systemIo(), log: SILENT });
  expect(await rejection(threads.parts(region(1, undefined, alone, 1)))).toMatchObject({ code: 'HOST_LOST', message: expect.stringContaining('thread-0') });
  await threads.close();
});
