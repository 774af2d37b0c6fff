// One trial of Kafka → windows → Kafka: topics of its own, samples that are produced while the job runs, runs of the job in processes that may be killed, and what an
// independent reader (plain kafkajs, read_committed) finds in the end.
//
// What is expected is computed here from the samples, without the engine. Samples of a host lie in one partition in the order of their time, so none is late, however
// partitions and restarts fall; their values are whole numbers, so that sums do not depend on an order.

import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Kafka, logLevel } from 'kafkajs';
import type { Places, Sample } from '../../docs/examples/kafka-windows.ts';
import { bundled } from '../bundled.ts';
import type { KafkaSettings } from './kafka-process.ts';

const program = fileURLToPath(new URL('./kafka-process.ts', import.meta.url));
const MINUTE = 60_000;
const PARTITIONS = 4;
const HOSTS = 8;
/** Brokers refuse what lies ahead of their clock. */
const BEGIN = Date.UTC(2024, 0, 1);

export interface KafkaEnded {
  readonly signal: NodeJS.Signals | null;
  readonly code: number | null;
  readonly errors: string;
  readonly said: { readonly status: string; readonly restarts: number; readonly checkpoints: number } | undefined;
}

export class KafkaTrial {
  readonly brokers: string[];
  readonly folder: string;
  readonly settings: KafkaSettings;
  readonly samples: readonly (readonly Sample[])[];
  readonly topics: { readonly metrics: string; readonly cpu: string; readonly memory: string; readonly markers: string };
  readonly #kafka: Kafka;
  #produced: Promise<void> = Promise.resolve();
  readonly #children = new Set<ChildProcess>();

  /** Samples of a host: one each 20 s of event time. */
  constructor(brokers: string[], options: { samples?: number; parallelism?: number; every?: number } & NonNullable<Places['sinks']> = {}) {
    const { samples = 400, parallelism = 2, every = 40, ...sinks } = options;
    this.brokers = brokers;
    this.folder = mkdtempSync(join(tmpdir(), 'millrace-kafka-'));
    const name = `t${randomBytes(5).toString('hex')}`;
    this.topics = { metrics: `${name}-metrics`, cpu: `${name}-cpu`, memory: `${name}-memory`, markers: `${name}-markers` };
    this.samples = samplesOf(samples);
    const { metrics, cpu, memory, markers } = this.topics;
    const offsets = Object.fromEntries(this.samples.map((of, partition) => [partition, String(of.length)]));
    const places = { brokers, metrics, cpu, memory, until: { offsets }, sinks: { markerTopic: markers, transactionalIdPrefix: name, ...sinks } };
    this.settings = { places, checkpoints: join(this.folder, 'checkpoints'), parallelism, every };
    this.#kafka = new Kafka({ brokers, clientId: 'trial', logLevel: logLevel.NOTHING, retry: { initialRetryTime: 50, retries: 30, maxRetryTime: 500 } });
  }

  async createTopics(): Promise<void> {
    const admin = this.#kafka.admin();
    await admin.connect();
    const { metrics, cpu, memory } = this.topics;
    await admin.createTopics({
      waitForLeaders: false,
      topics: [
        { topic: metrics, numPartitions: PARTITIONS },
        { topic: cpu, numPartitions: 3 },
        { topic: memory, numPartitions: 2 },
      ],
    });
    // A broker may not have heard of them yet, and kafkajs does not wait for that.
    for (let left = 200; ; left--) {
      try {
        await admin.fetchTopicMetadata({ topics: [metrics, cpu, memory] });
        break;
      } catch (error) {
        if (left === 0) throw error;
        await sleep(50);
      }
    }
    await admin.disconnect();
  }

  /** In the background: all samples, over so many milliseconds. */
  produce(ms: number): void {
    this.#produced = this.#produce(ms);
    this.#produced.catch(() => {});
  }

  async #produce(ms: number): Promise<void> {
    const producer = this.#kafka.producer({ idempotent: true, maxInFlightRequests: 1 });
    await producer.connect();
    const steps = 40;
    for (let step = 0; step < steps; step++) {
      const messages = this.samples.flatMap((of, partition) =>
        of
          .slice(Math.floor((of.length * step) / steps), Math.floor((of.length * (step + 1)) / steps))
          .map((sample) => ({ partition, key: sample.host, value: JSON.stringify(sample), timestamp: String(sample.at) })),
      );
      await producer.send({ topic: this.topics.metrics, messages });
      await sleep(ms / steps);
    }
    await producer.disconnect();
  }

  begin(settings: Partial<KafkaSettings> = {}, faults = ''): { process: ChildProcess; ended: Promise<KafkaEnded> } {
    const child = spawn(process.execPath, [bundled(program), JSON.stringify({ ...this.settings, ...settings })], {
      env: { ...process.env, MILLRACE_FAULTS: faults },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#children.add(child);
    let out = '';
    let errors = '';
    child.stdout.on('data', (data) => (out += data));
    child.stderr.on('data', (data) => (errors += data));
    const ended = new Promise<KafkaEnded>((resolve, reject) => {
      child.on('error', reject);
      child.on('close', (code, signal) => {
        this.#children.delete(child);
        resolve({ signal, code, errors, said: out === '' ? undefined : JSON.parse(out) });
      });
    });
    return { process: child, ended };
  }

  /** Runs without faults to the end; what is wrong with that, as sentences. */
  async finish(settings: Partial<KafkaSettings> = {}): Promise<string[]> {
    await this.#produced;
    const { signal, code, errors, said } = await this.begin(settings).ended;
    if (signal === null && code === 0 && said?.status === 'finished') return [];
    return [`The last run ended with ${signal ?? code} (${said?.status}).\n${errors}`];
  }

  /** The checkpoints as they are now, in another folder: what a machine would find that cannot see that the other one lives. */
  copyCheckpoints(name: string): string {
    const copy = join(this.folder, name);
    cpSync(this.settings.checkpoints, copy, { recursive: true });
    return copy;
  }

  /** What is wrong with the output; of a sink that writes at least once, repeats are not. */
  async complaints(): Promise<string[]> {
    const wrong: string[] = [];
    const expected = expectedOf(this.samples.flat());
    const held = await readCommitted(this.#kafka, [this.topics.cpu, this.topics.memory]);
    for (const [name, topic] of [
      ['cpu', this.topics.cpu],
      ['memory', this.topics.memory],
    ] as const) {
      const got = held.get(topic)!.map(canonical);
      const repeats = this.settings.places.sinks?.guarantee === 'at-least-once';
      wrong.push(...difference(name, repeats ? [...new Set(got)] : got, expected[name]));
    }
    return wrong;
  }

  async remove(): Promise<void> {
    for (const child of this.#children) child.kill('SIGKILL');
    await this.#produced.catch(() => {});
    const admin = this.#kafka.admin();
    await admin.connect();
    const there = await admin.listTopics();
    await admin.deleteTopics({ topics: Object.values(this.topics).filter((topic) => there.includes(topic)) });
    await admin.disconnect();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

function samplesOf(count: number): Sample[][] {
  const partitions: Sample[][] = Array.from({ length: PARTITIONS }, () => []);
  for (let i = 0; i < count; i++) {
    for (let host = 0; host < HOSTS; host++) {
      const draw = ((i * 31 + host * 17) * 2_654_435_761) >>> 0;
      partitions[host % PARTITIONS]!.push({ host: `host-${host}`, at: BEGIN + i * 20_000 + host * 100, cpu: draw % 101, memory: draw % 4096 });
    }
  }
  return partitions;
}

/** `key start value`, sorted. */
function expectedOf(samples: readonly Sample[]): { readonly cpu: string[]; readonly memory: string[] } {
  const sums = new Map<string, { sum: number; count: number }>();
  const peaks = new Map<string, number>();
  for (const { host, at, cpu, memory } of samples) {
    const window = `${host} ${at - (at % (5 * MINUTE))}`;
    const sum = sums.get(window) ?? { sum: 0, count: 0 };
    sums.set(window, { sum: sum.sum + cpu, count: sum.count + 1 });
    for (let start = at - (at % MINUTE); start > at - 60 * MINUTE; start -= MINUTE) {
      const sliding = `${host} ${start}`;
      peaks.set(sliding, Math.max(peaks.get(sliding) ?? 0, memory));
    }
  }
  return {
    cpu: [...sums].map(([window, { sum, count }]) => `${window} ${sum / count}`).sort(),
    memory: [...peaks].map(([window, peak]) => `${window} ${peak}`).sort(),
  };
}

function canonical(row: string): string {
  const { key, start, window, value } = JSON.parse(row) as { key: string; start?: number; window?: { start: number }; value: number };
  return `${key} ${start ?? window?.start} ${value}`;
}

function difference(name: string, got: readonly string[], wanted: readonly string[]): string[] {
  const balance = new Map<string, number>();
  for (const row of wanted) balance.set(row, (balance.get(row) ?? 0) + 1);
  for (const row of got) balance.set(row, (balance.get(row) ?? 0) - 1);
  const lost = [...balance].filter(([, n]) => n > 0);
  const extra = [...balance].filter(([, n]) => n < 0);
  const wrong: string[] = [];
  if (lost.length > 0) wrong.push(`${name}: ${lost.length} rows of ${wanted.length} are lost, such as ${lost[0]![0]}`);
  if (extra.length > 0) wrong.push(`${name}: ${extra.length} rows are there that should not be, or twice, such as ${extra[0]![0]}`);
  return wrong;
}

/** A record as kafkajs decodes it, before it decides who is given it. */
interface RawRecord {
  readonly offset: string;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly isControlRecord: boolean;
  readonly batchContext: { readonly producerId: string; readonly inTransaction: boolean };
}

/**
 * The values of whole topics, read with plain kafkajs. It is given everything that lies in the log, and what is committed is decided here by the control records of each
 * producer: kafkajs itself takes the broker's list of aborted transactions for sorted by first offset, which it is not, and then gives records that were aborted.
 * Where a partition ends is said by a record that is written behind what is there.
 */
export async function readCommitted(kafka: Kafka, topics: readonly string[]): Promise<Map<string, string[]>> {
  const end = `end-${randomBytes(6).toString('hex')}`;
  const logs = new Map<string, { readonly topic: string; readonly records: RawRecord[] }>();
  const admin = kafka.admin();
  const producer = kafka.producer();
  const consumer = kafka.consumer({ groupId: end, readUncommitted: true, maxWaitTimeInMs: 100 });
  await Promise.all([admin.connect(), producer.connect(), consumer.connect()]);
  const { topics: found } = await admin.fetchTopicMetadata({ topics: [...topics] });
  let left = 0;
  for (const { name, partitions } of found) {
    left += partitions.length;
    await producer.send({ topic: name, messages: partitions.map(({ partitionId }) => ({ partition: partitionId, key: 'end', value: end })) });
  }
  await consumer.subscribe({ topics: [...topics], fromBeginning: true });
  await new Promise<void>((resolve, reject) => {
    consumer.on('consumer.crash', ({ payload }) => {
      // A new broker loads its first group for a while; the consumer begins again by itself then.
      if (!payload.restart) reject(payload.error);
    });
    consumer
      .run({
        autoCommit: false,
        eachBatch: async ({ batch }) => {
          const name = `${batch.topic} ${batch.partition}`;
          const log = logs.get(name) ?? { topic: batch.topic, records: [] };
          logs.set(name, log);
          const last = BigInt(log.records.at(-1)?.offset ?? -1);
          // Begun again, it reads again.
          const fresh = (batch as unknown as { readonly rawMessages: readonly RawRecord[] }).rawMessages.filter(({ offset }) => BigInt(offset) > last);
          log.records.push(...fresh);
          if (fresh.some(({ value }) => String(value) === end)) left -= 1;
          if (left === 0) resolve();
        },
      })
      .catch(reject);
  });
  await consumer.disconnect();
  await admin.deleteGroups([end]).catch(() => {});
  await Promise.all([admin.disconnect(), producer.disconnect()]);
  const values = new Map<string, string[]>(topics.map((topic) => [topic, []]));
  for (const { topic, records } of logs.values()) values.get(topic)!.push(...committedOf(records));
  return values;
}

/** Of one partition: a control record decides on everything that its producer has written in front of it. */
function committedOf(records: readonly RawRecord[]): string[] {
  const open = new Map<string, string[]>();
  const values: string[] = [];
  for (const { key, value, isControlRecord, batchContext } of records) {
    const { producerId, inTransaction } = batchContext;
    if (isControlRecord) {
      // Version and type, 16 bits each; type 1: commit.
      if (key!.readInt16BE(2) === 1) values.push(...(open.get(producerId) ?? []));
      open.delete(producerId);
    } else if (inTransaction) {
      const held = open.get(producerId);
      if (held === undefined) open.set(producerId, [String(value)]);
      else held.push(String(value));
    } else if (String(key) !== 'end') values.push(String(value));
  }
  return values;
}
