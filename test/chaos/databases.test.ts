// Writers of the Postgres and the Redis stream sink in processes of their own, killed, or stopped and overtaken, at every step and in every commit. Only in
// npm run test:chaos, or with MILLRACE_DATABASE_ROUNDS.

import { spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { POSTGRES_SINK_STEPS } from '../../src/connectors/postgres/sink.ts';
import { REDIS_STREAM_STEPS } from '../../src/connectors/redis/stream-sink.ts';
import { Database, lineage } from '../connectors/postgres/database.ts';
import { numbersIn, openServer, type Server } from '../connectors/redis/server.ts';
import { Random, SEED } from '../random.ts';
import { NO_POSTGRES } from '../services/postgres.ts';
import { NO_REDIS } from '../services/redis.ts';

const ASKED_FOR = process.env.npm_lifecycle_event === 'test:chaos' || process.env.MILLRACE_DATABASE_ROUNDS !== undefined;
const ROUNDS = Number(process.env.MILLRACE_DATABASE_ROUNDS ?? 100);

const at = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
const typescript = pathToFileURL(at('../../scripts/typescript.mjs')).href;

/** A writer process; `stopped` resolves when the system says that it was stopped, or when it has ended. */
function begin(program: string, settings: object, faults: string) {
  const child = spawn(process.execPath, ['--import', typescript, program, JSON.stringify(settings)], {
    env: { ...process.env, MILLRACE_FAULTS: faults },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let errors = '';
  child.stderr.on('data', (bytes) => (errors += bytes));
  let over = false;
  const ended = new Promise<{ status: NodeJS.Signals | number | null; errors: string }>((resolve) => {
    child.once('close', (code, signal) => {
      over = true;
      resolve({ status: signal ?? code, errors });
    });
  });
  const stopped = async (): Promise<void> => {
    while (!over && !/\) T /.test(await readFile(`/proc/${child.pid}/stat`, 'utf8').catch(() => ''))) await new Promise((resolve) => setTimeout(resolve, 10));
  };
  return { ended, stopped, resume: () => child.kill('SIGCONT') };
}

async function rounds(
  program: string,
  steps: readonly string[],
  settingsOf: () => Promise<{ settings: object; written: () => Promise<number[]>; expected: readonly number[] }>,
): Promise<void> {
  const random = new Random(SEED);
  for (let round = 0; round < ROUNDS; round++) {
    const { settings, written, expected } = await settingsOf();
    const zombies: ReturnType<typeof begin>[] = [];
    const course: string[] = [];
    for (let attempt = 1; attempt <= 3; attempt++) {
      const step = steps[Math.floor(random.next() * steps.length)]!;
      const how = random.next() < 0.5 ? 'kill' : 'stop';
      const fault = `${step}=${how}@${step.includes('open') ? 1 : 1 + Math.floor(random.next() * 4)}`;
      course.push(fault);
      const writer = begin(program, { ...settings, attempt }, fault);
      if (how === 'stop') {
        zombies.push(writer);
        await writer.stopped();
      } else await writer.ended;
      // Some zombies come back while the next attempt is on its way, others after the last.
      if (random.next() < 0.5) for (const zombie of zombies) setTimeout(() => zombie.resume(), random.next() * 400);
    }
    const last = await begin(program, { ...settings, attempt: 4 }, '').ended;
    expect(last, course.join(' ')).toEqual({ status: 0, errors: '' });
    for (const zombie of zombies) zombie.resume();
    await Promise.all(zombies.map(({ ended }) => ended));
    expect(await written(), `round ${round}: ${course.join(' ')}`).toEqual(expected);
  }
}

describe.skipIf(!ASKED_FOR)(`${ROUNDS} rounds of writers that are killed, or stopped and overtaken, seed ${SEED}`, () => {
  describe.skipIf(NO_POSTGRES)('PostgreSQL', () => {
    let database: Database;
    beforeAll(async () => {
      database = await Database.open();
    });
    afterAll(() => database?.close());

    it('every row is written once', { timeout: ROUNDS * 60_000 }, () =>
      rounds(at('../connectors/postgres/writer-process.ts'), POSTGRES_SINK_STEPS, async () => {
        const table = await database.table('n int');
        return {
          settings: { url: database.url, table, lineage: lineage() },
          written: () => database.numbers(table),
          expected: [10, 11, 12, 20, 21, 22, 30, 31, 32],
        };
      }),
    );
  });

  describe.skipIf(NO_REDIS)('Redis', () => {
    let server: Server;
    beforeAll(async () => {
      server = await openServer();
    });
    afterAll(() => server?.close());

    it('every entry is added once', { timeout: ROUNDS * 60_000 }, () =>
      rounds(at('../connectors/redis/stream-writer-process.ts'), REDIS_STREAM_STEPS, async () => {
        const stream = server.key();
        return {
          settings: { url: server.url, stream, lineage: lineage() },
          written: () => numbersIn(server, stream),
          expected: Array.from({ length: 1800 }, (_, n) => n),
        };
      }),
    );
  });
});
