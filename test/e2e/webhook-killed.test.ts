import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { beforeAll, expect, it, onTestFinished } from 'vitest';
import { bundled } from '../bundled.ts';
import { LONG } from '../long.ts';
import { temporaryFolder } from '../protocols/lab.ts';
import { freePorts } from '../services/ports.ts';
import { ensureBuilt } from './trial.ts';
import type { WebhookSettings } from './webhook-process.ts';

const program = fileURLToPath(new URL('./webhook-process.ts', import.meta.url));
const REQUESTS = 240;
const SENDERS = 12;
const KILLS = 3;

beforeAll(() => {
  if (LONG) ensureBuilt();
}, 180_000);

it.skipIf(!LONG)(
  'a webhook that is killed again and again loses nothing that it has acknowledged, and senders that name their requests find each written once',
  async () => {
    const folder = await temporaryFolder();
    const [port] = await freePorts(1);
    const settings: WebhookSettings = { port: port!, output: join(folder, 'out'), checkpoints: join(folder, 'checkpoints') };
    const begin = (): ChildProcess => spawn(process.execPath, [bundled(program), JSON.stringify(settings)], { stdio: ['pipe', 'ignore', 'inherit'] });
    let process_ = begin();
    onTestFinished(() => void process_.kill('SIGKILL'));
    let next = 0;
    let acknowledged = 0;
    const send = async (): Promise<void> => {
      while (next < REQUESTS) {
        const n = next++;
        // As long as it takes: whoever was not answered may have been taken or not.
        for (;;) {
          const answer = fetch(`http://127.0.0.1:${port}/in`, { method: 'POST', body: JSON.stringify({ n }), headers: { 'idempotency-key': `request-${n}` } });
          const status = await answer.then((response) => response.status).catch(() => 0);
          if (status === 200) break;
          await sleep(10);
        }
        acknowledged += 1;
      }
    };
    const sending = Promise.all(Array.from({ length: SENDERS }, send));
    for (let kill = 1; kill <= KILLS; kill++) {
      while (acknowledged < (REQUESTS * kill) / (KILLS + 1)) await sleep(1);
      const ended = once(process_, 'exit');
      process_.kill('SIGKILL');
      await ended;
      process_ = begin();
    }
    await sending;
    const ended = once(process_, 'exit');
    process_.stdin!.end();
    expect(await ended).toEqual([0, null]);
    const published = readdirSync(settings.output).filter((name) => !name.startsWith('.'));
    const lines = published.flatMap((name) => readFileSync(join(settings.output, name), 'utf8').trim().split('\n'));
    const numbers = lines.map((line) => (JSON.parse(line) as { n: number }).n).sort((a, b) => a - b);
    expect(numbers).toEqual(Array.from({ length: REQUESTS }, (_, n) => n));
  },
);
