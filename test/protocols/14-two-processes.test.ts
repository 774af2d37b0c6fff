import { join } from 'node:path';
import { job } from 'millrace';
import { describe, expect, it } from 'vitest';
import { checkpointsIn, ends, Feed, rejection, Store, temporaryFolder } from './lab.ts';
import { Child, published } from './processes.ts';

const COUNT = 4000;

/** The counts of all keys, 1 … n of each, each once. */
function expectExactlyOnce(records: { key: string; n: number }[], count: number): void {
  const seen = records.map(({ key, n }) => `${key} ${n}`).toSorted();
  const wanted = Array.from({ length: 7 }, (_, k) => Array.from({ length: Math.floor((count - 1 - k) / 7) + 1 }, (_, i) => `k${k} ${i + 1}`)).flat();
  expect(seen).toEqual(wanted.toSorted());
}

describe('protocols 14: two processes on one checkpoint or state directory', () => {
  it('a job started twice is refused the second time, naming the process; the first goes on undisturbed', async () => {
    const folder = await temporaryFolder();
    const first = new Child('counting-process.ts', [folder, String(COUNT), '60']);
    await first.said(/^running$/);
    const second = new Child('counting-process.ts', [folder, String(COUNT), '1']);
    expect(await second.ended).toBe(1);
    const refusal = JSON.parse(second.lines[0]!) as { code: string; message: string };
    expect(refusal.code).toBe('JOB_ALREADY_RUNNING');
    expect(refusal.message).toContain(`process ${first.process.pid}`);
    expect(refusal.message).toMatch(/since 20\d\d-/);
    expect(refusal.message).toContain('--wait');
    expect(await first.ended).toBe(0);
    expectExactlyOnce(await published(join(folder, 'out')), COUNT);
  });

  it('a start while the first is SIGSTOPped is refused, waits with --wait for longer than any patience, and takes over only after its death', async () => {
    const folder = await temporaryFolder();
    const first = new Child('counting-process.ts', [folder, String(COUNT), '5']);
    await first.said(/^\d+$/);
    first.process.kill('SIGSTOP');
    const refused = new Child('counting-process.ts', [folder, String(COUNT), '0']);
    expect(await refused.ended).toBe(1);
    expect(refused.lines[0]).toContain('JOB_ALREADY_RUNNING');
    const waiting = new Child('counting-process.ts', [folder, String(COUNT), '0', '{"wait":true}']);
    // It has looked at the lock for as long as another start took to be refused; it has said nothing.
    const again = new Child('counting-process.ts', [folder, String(COUNT), '0']);
    expect(await again.ended).toBe(1);
    expect(waiting.lines).toEqual([]);
    first.process.kill('SIGKILL');
    expect(await first.ended).toBe('SIGKILL');
    await waiting.said(/^done$/);
    expect(await waiting.ended).toBe(0);
    expectExactlyOnce(await published(join(folder, 'out')), COUNT);
  });

  it('a stopped process that goes on is still alone: who waits, waits for its end', async () => {
    const folder = await temporaryFolder();
    const first = new Child('counting-process.ts', [folder, '600', '5']);
    await first.said(/^\d+$/);
    first.process.kill('SIGSTOP');
    const waiting = new Child('counting-process.ts', [folder, '600', '0', '{"wait":true}']);
    const refused = new Child('counting-process.ts', [folder, '600', '0']);
    await refused.ended;
    first.process.kill('SIGCONT');
    expect(await first.ended).toBe(0);
    await waiting.said(/^done$/);
    // The first has finished: its result is returned, nothing runs twice.
    expectExactlyOnce(await published(join(folder, 'out')), 600);
  });

  it('in one process, too, a second start is refused, and after the first has ended it is not', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>({ bounded: false });
    const build = job('twice', (env) => void env.source('in', feed).sink('out', new Store()));
    const options = { checkpoints: checkpointsIn(folder) };
    const first = ends(await build.start(options));
    expect(await rejection(build.start(options))).toMatchObject({ code: 'JOB_ALREADY_RUNNING', retryable: true });
    expect(first.status).toBe('running');
    const abort = new AbortController();
    const waiting = rejection(build.start({ ...options, wait: true, signal: abort.signal }));
    abort.abort();
    expect((await waiting).code).toBe('JOB_ALREADY_RUNNING');
    const next = build.start({ ...options, wait: true });
    await first.stop();
    await (await next).cancel();
  });

  it('two jobs share a directory: everything of a job lies in a folder of its name', async () => {
    const folder = await temporaryFolder();
    const feed = new Feed<number>().push([1]).end();
    const stores = [new Store<number>(), new Store<number>()];
    await Promise.all(
      stores.map((store, i) => job(`job-${i}`, (env) => void env.source('in', feed).sink('out', store)).run({ checkpoints: checkpointsIn(folder) })),
    );
    expect(stores.map((s) => s.records)).toEqual([[1], [1]]);
  });

  for (const faults of ['checkpoint.registered=kill@2', 'job.finish=kill']) {
    it(`SIGKILL at ${faults}: the next start goes on, and every record is published once`, async () => {
      const folder = await temporaryFolder();
      const killed = new Child('counting-process.ts', [folder, '1000', '1'], faults);
      expect(await killed.ended).toBe('SIGKILL');
      const next = new Child('counting-process.ts', [folder, '1000', '0', '{"parallelism":2}']);
      expect(await next.ended, next.lines.join('\n') + next.errors).toBe(0);
      expectExactlyOnce(await published(join(folder, 'out')), 1000);
    });
  }
});
