import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { connect } from 'node:net';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { expect, it } from 'vitest';
import { kafkaForTests, NO_KAFKA } from './kafka.ts';
import { NO_OWN_POSTGRES, PostgresServer } from './postgres.ts';
import { NO_OWN_REDIS, RedisServer } from './redis.ts';

const typescript = pathToFileURL(fileURLToPath(new URL('../../scripts/typescript.mjs', import.meta.url))).href;

function listens(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.destroy();
      resolve(true);
    }).once('error', () => resolve(false));
  });
}

const portOf = (address: string): number => Number(/:(\d+)/.exec(address.replace(/^\w+:\/\//, ''))![1]);

it.skipIf(NO_OWN_REDIS)('a server ends with the process that started it, also when that is killed, and its folder with it', async () => {
  const redis = fileURLToPath(new URL('./redis.ts', import.meta.url));
  const program = `
    const { RedisServer } = await import(${JSON.stringify(redis)});
    const server = await RedisServer.start();
    console.log(JSON.stringify({ url: server.url, folder: server.folder }));
    setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ['--import', typescript, '--input-type=module', '-e', program], { stdio: ['ignore', 'pipe', 'inherit'] });
  const said = await new Promise<string>((resolve) => child.stdout.once('data', (bytes) => resolve(String(bytes))));
  const { url, folder } = JSON.parse(said) as { url: string; folder: string };
  expect([await listens(portOf(url)), existsSync(folder)]).toEqual([true, true]);
  child.kill('SIGKILL');
  while ((await listens(portOf(url))) || existsSync(folder)) await new Promise((resolve) => setTimeout(resolve, 20));
});

it.skipIf(NO_OWN_REDIS)('a killed Redis comes back with what it had answered', async () => {
  const server = await RedisServer.start();
  try {
    const key = randomUUID();
    expect(await command(server.url, `SET ${key} kept`)).toBe('+OK');
    await server.kill();
    expect(await listens(portOf(server.url))).toBe(false);
    await server.up();
    expect(await command(server.url, `STRLEN ${key}`)).toBe(':4');
  } finally {
    await server.close();
  }
});

it.skipIf(NO_OWN_POSTGRES)('a killed PostgreSQL comes back on its port', async () => {
  const server = await PostgresServer.start();
  try {
    await server.kill();
    expect(await listens(portOf(server.url))).toBe(false);
    await server.up();
    expect(await listens(portOf(server.url))).toBe(true);
  } finally {
    await server.close();
  }
  expect(await listens(portOf(server.url))).toBe(false);
});

it.skipIf(NO_KAFKA)('files of a run share a broker', async () => {
  const brokers = await kafkaForTests();
  expect(await kafkaForTests()).toEqual(brokers);
  expect(await listens(portOf(brokers[0]!))).toBe(true);
});

function command(url: string, line: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(portOf(url), '127.0.0.1', () => socket.write(`${line}\r\n`));
    socket.once('data', (bytes) => {
      resolve(String(bytes).trim());
      socket.destroy();
    });
    socket.once('error', reject);
  });
}
