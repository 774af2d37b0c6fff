import type { JobEvent } from 'millrace';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ensureBuilt, FOUR, Input } from '../e2e/trial.ts';
import { LONG } from '../long.ts';
import { NO_ZOOKEEPER } from '../services/zookeeper.ts';
import { ClusterTrial, DYING_MODULE, JOB_MODULE, THREAD_ENTRY } from './cluster-trial.ts';
import { TcpProxy } from './zookeeper/proxy.ts';

beforeAll(ensureBuilt, 180_000);

const checkpoint = (event: { type: string }): boolean => event.type === 'checkpoint';

describe.skipIf(NO_ZOOKEEPER).each(LONG ? (['wc', 'cpu', 'q5'] as const) : (['wc'] as const))('%s on several workers', (workload) => {
  const input = new Input(workload, { records: 20_000, files: FOUR });
  afterAll(() => input.remove());

  it('gives what it gives in one process, when a worker is killed in the middle, and when the one that takes its place joins late', async () => {
    const cluster = await ClusterTrial.open(input, { backend: 'level' });
    const [, killed] = await Promise.all([cluster.worker({ held: 6 }), cluster.worker({ held: 6 })]);
    // The leader has a share of it.
    const run = await cluster.lead({ parallelism: 3, slots: 1 });
    await run.start();
    await cluster.next(checkpoint);
    killed.process.kill('SIGKILL');
    await cluster.until(() => cluster.said.some(({ text }) => text.includes('needs 3 slots and waits for workers: 2 are there')));
    await cluster.worker();
    await cluster.next(checkpoint);
    cluster.go();
    expect(await run.finished).toMatchObject({ status: 'finished', restarts: 1 });
    expect(['HOST_LOST', 'LINK_LOST']).toContain(cluster.restarts.join());
    // What the killed one had on its disk is removed when it is used again.
    expect((await cluster.trial.complaints()).filter((complaint) => !complaint.startsWith('state: '))).toEqual([]);
    cluster.trial.remove();
  });

  it.runIf(LONG)('is taken over from a worker that was stopped for too long, and that writes nothing when it goes on', async () => {
    const cluster = await ClusterTrial.open(input, { pace: 5 });
    const [zombie] = await Promise.all([cluster.worker({ held: 8 }), cluster.worker({ held: 8, slots: 2 }), cluster.worker({ held: 8, slots: 2 })]);
    const run = await cluster.lead({ parallelism: 3 });
    await run.start();
    await cluster.next(checkpoint);
    zombie.process.kill('SIGSTOP');
    await cluster.next(({ type }) => type === 'restart');
    await cluster.next(checkpoint);
    zombie.process.kill('SIGCONT');
    // It knows, and is a member again.
    await zombie.said(/^warn The link to .* is gone/);
    cluster.go();
    expect(await run.finished).toMatchObject({ status: 'finished', restarts: 1 });
    expect(await cluster.trial.complaints()).toEqual([]);
    cluster.trial.remove();
  });
});

describe.skipIf(NO_ZOOKEEPER)('workers', () => {
  const input = new Input('wc', { records: 5000, files: FOUR });
  afterAll(() => input.remove());

  it('with a wrong secret, or with another program, have no slots for the job; the others do without them', async () => {
    const cluster = await ClusterTrial.open(input);
    const [stranger, other] = await Promise.all([cluster.worker({ secret: 'wrong', id: '0' }), cluster.worker({ version: '2' })]);
    const run = await cluster.lead({ parallelism: 1, id: 'leader' });
    const started = run.start();
    await cluster.until(() => cluster.said.some(({ fields }) => fields.wanted === 1 && fields.there === 0));
    expect(cluster.said.find(({ fields }) => fields.wanted === 1)?.fields).toMatchObject({ listed: 1, connected: 0, otherPrograms: 1 });
    await cluster.worker();
    await started;
    expect(await run.finished).toMatchObject({ status: 'finished', restarts: 0 });
    expect(await cluster.trial.complaints()).toEqual([]);
    expect(await stranger.said(/cannot be connected/)).toContain('secrets of the two differ');
    // It was told nothing but who came to its door.
    expect(other.lines.filter((line) => line.startsWith('warn') && !line.includes('the secrets of the two differ'))).toEqual([]);
    cluster.trial.remove();
  });

  it.runIf(LONG)('that are too few for the plan do it with fewer instances, where the job may, and are waited for no longer', async () => {
    const cluster = await ClusterTrial.open(input);
    const [killed] = await Promise.all([cluster.worker({ held: 2 }), cluster.worker({ held: 2 })]);
    const run = await cluster.lead({ parallelism: 2, shrinks: true });
    await run.start();
    await cluster.next(checkpoint);
    killed.process.kill('SIGKILL');
    await cluster.next(({ type }) => type === 'restart');
    await cluster.next(checkpoint);
    cluster.go();
    expect(await run.finished).toMatchObject({ status: 'finished' });
    expect(run.plan.vertices.map(({ parallelism }) => parallelism)).toEqual(run.plan.vertices.map(() => 1));
    expect(await cluster.trial.complaints()).toEqual([]);
    cluster.trial.remove();
  });

  it('that wait for slots are given up when the job is cancelled', async () => {
    const cluster = await ClusterTrial.open(input);
    const run = await cluster.lead({ parallelism: 1 });
    const started = run.start();
    started.catch(() => {});
    await cluster.until(() => cluster.said.some(({ fields }) => fields.wanted === 1));
    expect(await run.cancel()).toMatchObject({ status: 'cancelled' });
    cluster.trial.remove();
  });

  it('whose connection breaks restart from the newest checkpoint; while they cannot reach each other one of them does it alone', async () => {
    const cluster = await ClusterTrial.open(input);
    // The one with the smallest id dials all others, and everybody the leader: only the connection between these two goes over the proxy.
    const behind = await cluster.worker({ id: 'b', slots: 2, held: 2 });
    const proxy = await TcpProxy.start(behind.address);
    behind.process.kill('SIGTERM');
    await behind.said(/^left/);
    const port = Number(behind.address.split(':')[1]);
    const [one] = await Promise.all([
      cluster.worker({ id: 'a', slots: 2, held: 2 }),
      cluster.worker({ id: 'b', slots: 2, held: 2, port, advertise: proxy.connect }),
    ]);
    const run = await cluster.lead({ parallelism: 2, id: 'leader' });
    await run.start();
    await cluster.next(checkpoint);
    proxy.cut();
    await cluster.next(({ type }) => type === 'restart');
    await cluster.next(checkpoint);
    const tree = await run.tree();
    cluster.go();
    expect(await run.finished).toMatchObject({ status: 'finished', restarts: 1 });
    expect(cluster.restarts).toEqual(['LINK_LOST']);
    // What was placed anew avoids one of the two.
    expect(JSON.stringify(tree).includes('worker-a-0')).not.toBe(JSON.stringify(tree).includes('worker-b-0'));
    expect(cluster.said.some(({ text, fields }) => text.includes('placed anew') && String(fields.error).includes('cannot reach each other'))).toBe(true);
    expect(await cluster.trial.complaints()).toEqual([]);
    proxy.mend();
    await proxy.close();
    expect(one.errors).toBe('');
    cluster.trial.remove();
  });

  it.runIf(LONG)('run their hosts in threads', async () => {
    const cluster = await ClusterTrial.open(input);
    process.env.MILLRACE_TRIAL = JSON.stringify(cluster.trial.settings);
    const threads = { count: 2, entry: THREAD_ENTRY, module: JOB_MODULE };
    await Promise.all([cluster.worker({ threads, slots: 2 }), cluster.worker({ threads, slots: 2 })]);
    const run = await cluster.lead({ parallelism: 4 });
    await run.start();
    expect(await run.finished).toMatchObject({ status: 'finished', restarts: 0 });
    expect(await cluster.trial.complaints()).toEqual([]);
    cluster.trial.remove();
  });

  it.runIf(LONG).each([
    ['by its worker, which says where it hangs', { worker: 3000, leader: 60_000 }],
    ['by its leader, where its worker does not see it', { worker: 60_000, leader: 3000 }],
  ])('with a thread that hangs: it is ended %s', async (by, stall) => {
    const input = new Input('cpu', { records: 5000, files: FOUR });
    const cluster = await ClusterTrial.open(input);
    process.env.MILLRACE_TRIAL = JSON.stringify({ ...cluster.trial.settings, deaths: ['hangs'], at: 300, folder: cluster.trial.folder });
    const threads = { count: 2, entry: THREAD_ENTRY, module: DYING_MODULE };
    await Promise.all([cluster.worker({ threads, slots: 2, stallMs: stall.worker }), cluster.worker({ threads, slots: 2, stallMs: stall.worker })]);
    const run = await cluster.lead({ parallelism: 2, stallMs: stall.leader });
    await run.start();
    expect(await run.finished).toMatchObject({ status: 'finished', restarts: 1 });
    const event = cluster.events.find(({ type }) => type === 'restart') as Extract<JobEvent, { type: 'restart' }>;
    expect(event.error.code).toBe('HOST_LOST');
    expect(event.error.message).toMatch(
      by.startsWith('by its worker') ? /gave no sign of life for 3 s: the operator 'averages' .* hangs in die .*, key "host-/ : /gave no answer for 3 s/,
    );
    expect(await cluster.trial.complaints()).toEqual([]);
    cluster.trial.remove();
    input.remove();
  });
});
