import { spawn, spawnSync } from 'node:child_process';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { job } from 'millrace';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { connectionName } from '../../src/connectors/postgres/marker.ts';
import { postgresSink } from '../../src/connectors/postgres/sink.ts';
import { systemIo, withFaults } from '../../src/runtime/io.ts';
import { Database, lineage } from '../connectors/postgres/database.ts';
import type { Settings } from '../connectors/postgres/writer-process.ts';
import { sinkContext } from '../connectors/reading.ts';
import { NO_POSTGRES } from '../services/postgres.ts';
import { checkpointsIn, ends, Feed, jobOn, RESTARTS, rejection, temporaryFolder, Watch } from './lab.ts';

const program = fileURLToPath(new URL('../connectors/postgres/writer-process.ts', import.meta.url));
const typescript = pathToFileURL(fileURLToPath(new URL('../../scripts/typescript.mjs', import.meta.url))).href;
const EVERYTHING = [10, 11, 12, 20, 21, 22, 30, 31, 32];

describe.skipIf(NO_POSTGRES)('protocols 18: what excludes a zombie is a condition at the resource: Postgres', () => {
  let database: Database;
  beforeAll(async () => {
    database = await Database.open();
  });
  afterAll(() => database?.close());

  const rowsOf = (numbers: readonly number[]): { n: number }[] => numbers.map((n) => ({ n }));

  /** A writer that stops at a step of its first commit until it is let go on. */
  function stopping(step: string) {
    let go = (): void => {};
    let reached = (): void => {};
    const stopped = new Promise<void>((resolve) => {
      reached = resolve;
    });
    const wait = new Promise<void>((resolve) => {
      go = resolve;
    });
    const io = {
      ...systemIo(),
      step(name: string) {
        if (name !== step) return undefined;
        reached();
        return wait;
      },
    };
    return { io, stopped, go: () => go() };
  }

  it('a zombie with an open transaction that has updated the marker is ended, and its segment is committed once', async () => {
    const table = await database.table('n int');
    const identity = { lineage: lineage() };
    const { io, stopped, go } = stopping('sink.postgres.commit');
    const zombie = await postgresSink<{ n: number }>({ url: database.url, table }, io).open(sinkContext({ ...identity, attempt: 1 }));
    const outcome = rejection(zombie.commit(7, rowsOf([1, 2])));
    await stopped;
    const next = await postgresSink<{ n: number }>({ url: database.url, table }).open(sinkContext({ ...identity, attempt: 2 }));
    expect(await next.lastCommitted()).toBe(0);
    await next.commit(7, rowsOf([1, 2]));
    go();
    expect(await outcome).toMatchObject({ code: 'POSTGRES_UNREACHABLE' });
    expect(await database.numbers(table)).toEqual([1, 2]);
    await Promise.all([zombie.close(), next.close()]);
  });

  it('a commit that is decided while the new attempt waits at the row is seen by it', async () => {
    const table = await database.table('n int');
    const identity = { lineage: lineage() };
    const { io, stopped, go } = stopping('sink.postgres.commit');
    const old = await postgresSink<{ n: number }>({ url: database.url, table }, io).open(sinkContext({ ...identity, attempt: 1 }));
    const committed = old.commit(7, rowsOf([1, 2]));
    await stopped;
    const opening = postgresSink<{ n: number }>({ url: database.url, table }).open(sinkContext({ ...identity, attempt: 2 }));
    // It waits at the lock: the server says so.
    for (;;) {
      const [waiting] = await database.query(
        'SELECT count(*)::int AS count FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted AND a.application_name = $1',
        [connectionName(sinkContext({ ...identity, attempt: 2 }))],
      );
      if (waiting!.count !== 0) break;
    }
    go();
    await committed;
    const next = await opening;
    expect(await next.lastCommitted()).toBe(7);
    expect(await database.numbers(table)).toEqual([1, 2]);
    await Promise.all([old.close(), next.close()]);
  });

  it('a zombie that begins to commit after the new attempt has opened finds a newer one, before it writes a row', async () => {
    const table = await database.table('n int');
    const identity = { lineage: lineage() };
    const zombie = await postgresSink<{ n: number }>({ url: database.url, table }).open(sinkContext({ ...identity, attempt: 1 }));
    const next = await postgresSink<{ n: number }>({ url: database.url, table }).open(sinkContext({ ...identity, attempt: 2 }));
    expect(await rejection(zombie.commit(7, rowsOf([1])))).toMatchObject({ code: 'WRITER_FENCED', retryable: false });
    await next.commit(7, rowsOf([1]));
    expect(await rejection(zombie.commit(8, rowsOf([2])))).toMatchObject({ code: 'SINK_FAILED' });
    expect(await database.numbers(table)).toEqual([1]);
    expect(await rejection(postgresSink({ url: database.url, table }).open(sinkContext({ ...identity, attempt: 1 })))).toMatchObject({ code: 'WRITER_FENCED' });
    await Promise.all([zombie.close(), next.close()]);
  });

  it('writers of an older attempt are fenced that the new one knows nothing of: with a commit under way, between two, or opened late', async () => {
    const table = await database.table('n int');
    const { io, stopped, go } = stopping('sink.postgres.commit');
    const of = { lineage: lineage() };
    const sink = postgresSink<{ n: number }>({ url: database.url, table });
    const [idle, other] = await Promise.all(['1', '2'].map((writer) => sink.open(sinkContext({ ...of, writer, attempt: 1 }))));
    const busy = await postgresSink<{ n: number }>({ url: database.url, table }, io).open(sinkContext({ ...of, writer: '3', attempt: 1 }));
    await other!.commit(6, rowsOf([6]));
    const outcome = rejection(busy.commit(7, rowsOf([7])));
    await stopped;
    // It goes on with one instance, from a checkpoint that has none of them.
    const next = await sink.open(sinkContext({ ...of, writer: '0', attempt: 2 }));
    go();
    expect(await outcome).toMatchObject({ code: 'POSTGRES_UNREACHABLE' });
    for (const writer of [idle!, other!])
      expect(await rejection(writer.commit(8, rowsOf([8])))).toMatchObject({ code: expect.stringMatching(/^(WRITER_FENCED|POSTGRES_UNREACHABLE)$/) as string });
    expect(await rejection(sink.open(sinkContext({ ...of, writer: '4', attempt: 1 })))).toMatchObject({ code: 'WRITER_FENCED' });
    await next.commit(9, rowsOf([9]));
    expect(await database.numbers(table)).toEqual([6, 9]);
    const back = await sink.open(sinkContext({ ...of, writer: '2', attempt: 3 }));
    expect(await back.lastCommitted()).toBe(6);
    await Promise.all([idle!, other!, busy, next, back].map((writer) => writer.close()));
  });

  it('of a writer whose connection is gone between two commits nothing is lost: the next one makes another', async () => {
    const table = await database.table('n int');
    const context = sinkContext({ lineage: lineage() });
    const writer = await postgresSink<{ n: number }>({ url: database.url, table }).open(context);
    await writer.commit(1, rowsOf([1]));
    await database.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1', [connectionName(context)]);
    // The loss may be noticed by the commit itself, whose outcome is then unknown.
    const outcome = await writer.commit(2, rowsOf([2])).catch((error: unknown) => error);
    if (outcome !== undefined) {
      expect(outcome).toMatchObject({ code: 'POSTGRES_UNREACHABLE', retryable: true });
      const again = await postgresSink<{ n: number }>({ url: database.url, table }).open({ ...context, attempt: 2 });
      expect(await again.lastCommitted()).toBe(1);
      await again.commit(2, rowsOf([2]));
      await again.close();
    }
    expect(await database.numbers(table)).toEqual([1, 2]);
    await writer.close();
  });

  function killed(settings: string, faults: string): NodeJS.Signals | number | null {
    const { signal, status, stderr } = spawnSync(process.execPath, ['--import', typescript, program, settings], {
      env: { ...process.env, MILLRACE_FAULTS: faults },
      encoding: 'utf8',
    });
    if (signal === null && status !== 0) throw new Error(stderr);
    return signal ?? status;
  }

  function settingsOf(table: string, of: string, attempt: number, blocked?: Settings['blocked']): string {
    return JSON.stringify({ url: database.url, table, lineage: of, attempt, blocked });
  }

  it('a process with a blocked event loop in the middle of its commit has lost it when it wakes', async () => {
    const table = await database.table('n int');
    const of = lineage();
    const child = spawn(process.execPath, ['--import', typescript, program, settingsOf(table, of, 1, { step: 'sink.postgres.rows', ms: 2500 })], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let said = '';
    const blocked = new Promise<void>((resolve) => {
      child.stdout.on('data', (bytes) => {
        said += bytes;
        if (said.includes('blocked')) resolve();
      });
    });
    const over = new Promise((resolve) => child.once('close', resolve));
    await blocked;
    const next = await postgresSink<{ n: number }>({ url: database.url, table }).open(sinkContext({ lineage: of, attempt: 2 }));
    expect(await next.lastCommitted()).toBe(1);
    await next.commit(2, rowsOf([20, 21, 22]));
    await next.commit(3, rowsOf([30, 31, 32]));
    await over;
    expect(said.trim().split('\n')).toEqual(['committed 1', 'blocked', 'failed POSTGRES_UNREACHABLE']);
    expect(await database.numbers(table)).toEqual(EVERYTHING);
    await next.close();
  });

  // Every step, and more than once, in test/chaos.
  it.each(['sink.postgres.marked', 'sink.postgres.commit', 'sink.postgres.committed'])(
    'a process killed at %s in its second commit leaves every row to be written once',
    async (step) => {
      const table = await database.table('n int');
      const of = lineage();
      expect(killed(settingsOf(table, of, 1), `${step}=kill@2`)).toBe('SIGKILL');
      const writer = await postgresSink<{ n: number }>({ url: database.url, table }).open(sinkContext({ lineage: of, attempt: 2 }));
      const marker = await writer.lastCommitted();
      expect(marker).toBe(step === 'sink.postgres.committed' ? 2 : 1);
      for (const checkpoint of [1, 2, 3]) if (checkpoint > marker) await writer.commit(checkpoint, rowsOf([0, 1, 2].map((i) => checkpoint * 10 + i)));
      await writer.close();
      expect(await database.numbers(table)).toEqual(EVERYTHING);
    },
  );

  it.each([
    ['sink.postgres.commit', 'fail@2'],
    ['sink.postgres.committed', 'fail@2'],
    ['sink.committed', 'fail@3'],
  ])('a job that fails at %s=%s and is restored at another parallelism has written every row once', async (step, fault) => {
    const folder = await temporaryFolder();
    const table = await database.table('n int');
    const faults = withFaults(systemIo(), `${step}=${fault}`);
    const sink = (io = systemIo()) => postgresSink<{ n: number }>({ url: database.url, table }, io);
    const build = (of: typeof job, feed: Feed<number>, io = systemIo()) =>
      of('rescaled', (env) => {
        env
          .source('in', feed)
          .map((n) => ({ n }))
          .rebalance()
          .sink('out', sink(io));
      });
    const feed = new Feed<number>({ bounded: false });
    const first = ends(await build(jobOn(faults.step), feed, faults).start({ parallelism: 3, checkpoints: checkpointsIn(folder), restarts: false }));
    const numbers = Array.from({ length: 40 }, (_, n) => n);
    for (let from = 0; from < 20; from += 10) {
      await feed.push(numbers.slice(from, from + 10)).taken();
      await first.checkpoint().catch(() => {});
    }
    await rejection(first.finished);
    const again = new Feed<number>();
    for (let from = 0; from < 40; from += 10) again.push(numbers.slice(from, from + 10));
    again.end();
    await build(job, again).run({ parallelism: 2, checkpoints: checkpointsIn(folder) });
    expect(await database.numbers(table)).toEqual(numbers);
  });

  it('a region that restarts with a commit of unknown outcome asks the marker, and goes on', async () => {
    const folder = await temporaryFolder();
    const table = await database.table('n int PRIMARY KEY');
    const faults = withFaults(systemIo(), 'sink.postgres.committed=fail@1,sink.postgres.rows=fail@3');
    const watch = new Watch();
    const feed = new Feed<number>();
    const running = ends(
      await job('restarted', (env) => {
        env
          .source('in', feed)
          .map((n) => ({ n }))
          .sink('out', postgresSink<{ n: number }>({ url: database.url, table }, faults));
      }).start({ checkpoints: checkpointsIn(folder), restarts: RESTARTS, onEvent: watch.onEvent }),
    );
    for (let i = 0; i < 4; i++) {
      await feed.push([i * 2, i * 2 + 1]).taken();
      await running.checkpoint().catch(() => {});
    }
    feed.end();
    await running.finished;
    expect(watch.of('restart').length).toBeGreaterThanOrEqual(2);
    expect(await database.numbers(table)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  });

  it('a marker row that is gone, or says less than was committed, stops the job', async () => {
    const table = await database.table('n int');
    const of = lineage();
    const sink = postgresSink<{ n: number }>({ url: database.url, table });
    const writer = await sink.open(sinkContext({ lineage: of }));
    const born = writer.snapshot!();
    await writer.commit(4, rowsOf([1]));
    const kept = writer.snapshot!();
    await writer.close();
    await database.query('UPDATE millrace_markers SET checkpoint = 3 WHERE lineage = $1', [of]);
    expect(await rejection(sink.open(sinkContext({ lineage: of, attempt: 2, restored: kept })))).toMatchObject({ code: 'MARKER_LOST', retryable: false });
    await database.query('DELETE FROM millrace_markers WHERE lineage = $1', [of]);
    for (const restored of [born, kept]) {
      expect(await rejection(sink.open(sinkContext({ lineage: of, attempt: 2, restored })))).toMatchObject({ code: 'MARKER_LOST' });
    }
    // Another table has no marker to lose.
    const other = await postgresSink({ url: database.url, table: await database.table('n int') }).open(sinkContext({ lineage: of, restored: kept }));
    expect(await other.lastCommitted()).toBe(0);
    await other.close();
  });
});
