// A configuration as a source, on a real server. The conformance suite of sources does not fit: it reads at least ten records from the beginning on, and again, where a
// configuration gives what is current.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { job, json, text as textFormat } from 'millrace';
import { collect } from 'millrace/connectors';
import { zookeeper } from 'millrace/zookeeper';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { Client } from '../../../src/cluster/zookeeper/client.ts';
import { type ConfigPosition, configSource } from '../../../src/cluster/zookeeper/config-source.ts';
import type { SourceBatch } from '../../../src/graph/source.ts';
import { type Letter, readContext } from '../../connectors/reading.ts';
import { NO_ZOOKEEPER, zookeeperForTests } from '../../services/zookeeper.ts';
import { clientsForTests, freshRoot, text } from './clients.ts';
import { TcpProxy } from './proxy.ts';

class Reading {
  readonly letters: Letter[] = [];
  readonly warned: string[] = [];
  readonly #ending = new AbortController();
  readonly #batches: AsyncIterator<SourceBatch<unknown, ConfigPosition>>;

  constructor(client: Client, from?: ConfigPosition, format = json<unknown>()) {
    const source = configSource(client, '/config/limits', format);
    const log = { debug() {}, info() {}, warn: (...said: unknown[]) => void this.warned.push(String(said.at(-1))), error() {} };
    this.#batches = source.read('/config/limits', from, readContext(this.letters, { signal: this.#ending.signal, log }))[Symbol.asyncIterator]();
    onTestFinished(async () => {
      await this.end();
    });
  }
  async next(): Promise<SourceBatch<unknown, ConfigPosition>> {
    const { value, done } = await this.#batches.next();
    if (done === true) throw new Error('the source has ended');
    return value;
  }
  async value(): Promise<unknown> {
    return (await this.next()).values[0];
  }
  async end(): Promise<boolean | undefined> {
    const pending = this.#batches.next();
    this.#ending.abort();
    return (await pending).done;
  }
}

const PATH = '/config/limits';
const put = (zk: Client, value: unknown): Promise<void> => zk.set(PATH, text(JSON.stringify(value)), -1);

describe.skipIf(NO_ZOOKEEPER)('a configuration in ZooKeeper', () => {
  const client = clientsForTests();
  /** With a node that holds that. */
  const beginning = async (value?: unknown): Promise<{ zk: Client; root: string }> => {
    const root = freshRoot();
    const zk = await client({ root });
    if (value !== undefined) {
      await zk.make('/config');
      await zk.create(PATH, text(JSON.stringify(value)));
    }
    return { zk, root };
  };

  it('gives the value that is there, and then each change', async () => {
    const { zk } = await beginning([1]);
    const reading = new Reading(zk);
    expect(await reading.value()).toEqual([1]);
    for (const value of [[2], [], 'x', null]) {
      const next = reading.next();
      await put(zk, value);
      expect((await next).values).toEqual([value]);
    }
    expect(await reading.end()).toBe(true);
  });

  it('skips values in between where nobody asks, and never the last', async () => {
    const { zk } = await beginning(0);
    const reading = new Reading(zk);
    expect(await reading.value()).toBe(0);
    for (let i = 1; i <= 50; i++) await put(zk, i);
    const seen: unknown[] = [];
    while (seen.at(-1) !== 50) seen.push(await reading.value());
    expect(seen.length).toBeLessThan(50);
  });

  it('waits for a node that is not there, nor its folder; removing it is no record, and made again it is new', async () => {
    const { zk } = await beginning();
    const reading = new Reading(zk);
    const first = reading.next();
    await zk.make('/config');
    await zk.create(PATH, text('1'));
    const { values, position } = await first;
    expect(values).toEqual([1]);
    const second = reading.next();
    await zk.remove(PATH, -1);
    await zk.settle();
    await zk.create(PATH, text('1'));
    const again = await second;
    expect(again.values).toEqual([1]);
    expect([position.version, again.position.version]).toEqual([0, 0]);
    expect(BigInt(again.position.czxid) > BigInt(position.czxid)).toBe(true);
  });

  it('keeps what does not decode as a dead letter, and passes it', async () => {
    const { zk } = await beginning(1);
    const reading = new Reading(zk);
    const { position: first } = await reading.next();
    await zk.set(PATH, text('{'), -1);
    const { values, position } = await reading.next();
    expect([values, reading.letters.map(({ record }) => Buffer.from(record as Uint8Array).toString())]).toEqual([[], ['{']]);
    expect([first.version, position.version]).toEqual([0, 1]);
    await put(zk, 2);
    expect(await reading.value()).toBe(2);
    expect(reading.letters.length).toBe(1);
  });

  it('gives nothing at its position again, and what has changed since', async () => {
    const { zk } = await beginning(1);
    const { position } = await new Reading(zk).next();
    const restored = new Reading(zk, position);
    const next = restored.next();
    await zk.settle();
    await put(zk, 2);
    expect((await next).values).toEqual([2]);
    await put(zk, 3);
    expect(await new Reading(zk, position).value()).toBe(3);
  });

  it('takes what is there, and says so, where it is older than its position: the ensemble has lost changes', async () => {
    const { zk } = await beginning(1);
    const { position } = await new Reading(zk).next();
    const reading = new Reading(zk, { ...position, version: 9 });
    expect(await reading.value()).toBe(1);
    expect(reading.warned.length).toBe(1);
    await put(zk, 2);
    expect(await reading.value()).toBe(2);
    expect(reading.warned.length).toBe(1);
  });

  it('loses no last value with a connection, nor with a session', async () => {
    const { zk, root } = await beginning(0);
    const proxy = await TcpProxy.start(await zookeeperForTests());
    onTestFinished(() => proxy.close());
    const reader = await client({ root, connect: proxy.connect, sessionTimeoutMs: 1000 });
    const reading = new Reading(reader, undefined, textFormat());
    expect(await reading.value()).toBe('0');
    for (let round = 1; round <= 3; round++) {
      const next = reading.value();
      proxy.cut();
      await put(zk, round);
      if (round === 3) await new Promise((resolve) => setTimeout(resolve, 1600));
      proxy.mend();
      expect(await next).toBe(String(round));
    }
    expect(reader.epoch).toBe(2);
  });

  it('in a job: the value, a stop, and after a restore only what has changed since', async () => {
    const { zk, root } = await beginning([1, 2]);
    const directory = await mkdtemp(join(tmpdir(), 'millrace-'));
    onTestFinished(() => rm(directory, { recursive: true, force: true, maxRetries: 3 }));
    const connect = `${await zookeeperForTests()}${root}`;
    const run = async (expected: readonly number[], change?: () => Promise<void>): Promise<void> => {
      const own = zookeeper({ connect, sessionTimeout: 4000 });
      const seen: number[] = [];
      let came: () => void = () => {};
      const all = new Promise<void>((resolve) => {
        came = () => {
          if (seen.length >= expected.length) resolve();
        };
      });
      const limits = job('limits', (env) => {
        env
          .source('limits', own.config<number[]>(PATH))
          .flatMap((each) => each)
          .forEach('seen', (n) => {
            seen.push(n);
            came();
          });
      });
      const running = await limits.start({ checkpoints: { directory, every: 60_000 } });
      await change?.();
      await all;
      await running.stop();
      await own.close();
      expect(seen).toEqual(expected);
    };
    await run([1, 2]);
    await run([3], () => put(zk, [3]));
    await put(zk, [4, 5]);
    await run([4, 5]);
  });
});

it('a start in a cluster is refused until there are clusters', async () => {
  const zk = zookeeper({ connect: 'localhost:1' });
  const seen: number[] = [];
  const numbers = job('numbers', (env) => {
    env.fromArray('in', [1]).sink('out', collect(seen));
  });
  await expect(numbers.run({ cluster: zk })).rejects.toMatchObject({ code: 'OPTION_INVALID' });
  expect(seen).toEqual([]);
  await zk.close();
});
