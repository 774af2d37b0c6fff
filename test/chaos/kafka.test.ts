// Not in npm test. npm run test:chaos: Kafka → windows → Kafka is killed and stopped at named steps and at random moments, its brokers are killed under it, and zombies go
// on after a rescale; a hundred points on each of two versions of Kafka. Writes docs/chaos-kafka.md.
//
// MILLRACE_KAFKA_CHAOS='20,5' runs that many on 4.3.1 and on 3.9.2, and writes nothing; MILLRACE_CHAOS_SEED repeats the moments of a run.

import { writeFileSync } from 'node:fs';
import { availableParallelism, cpus, totalmem, type } from 'node:os';
import { fileURLToPath } from 'node:url';
import { beforeAll, expect, it } from 'vitest';
import { brokerKilledAt, killedAfter, killedAt, type Point, runPoint, stoppedAt, zombieAt } from '../e2e/kafka-points.ts';
import { ensureBuilt } from '../e2e/trial.ts';
import { KafkaBroker, type KafkaVersion, NO_KAFKA } from '../services/kafka.ts';

const BY_SCRIPT = process.env.npm_lifecycle_event === 'test:chaos';
const ASKED_FOR = BY_SCRIPT || process.env.MILLRACE_KAFKA_CHAOS !== undefined;
const COUNTS = (process.env.MILLRACE_KAFKA_CHAOS ?? '100,100').split(',').map(Number) as [number, number];
const SEED = Number(process.env.MILLRACE_CHAOS_SEED ?? Date.now() % 1_000_000);
const LOG = fileURLToPath(new URL('../../docs/chaos-kafka.md', import.meta.url));
const VERSIONS: readonly KafkaVersion[] = ['4.3.1', '3.9.2'];

/** Any number of points: these in turn, with moments that are drawn. The first five and the first twenty are unlike. */
function pointOf(turn: number, random: () => number, broker: () => KafkaBroker): Point {
  const kinds: readonly (() => Point)[] = [
    () => killedAt(['sink.kafka.commit@3', 'sink.kafka.marker.read']),
    () => zombieAt('sink.kafka.commit@2', [3, 2]),
    () => brokerKilledAt('sink.kafka.commit@3', broker),
    () => stoppedAt('sink.kafka.commit@3'),
    () => killedAt(['sink.kafka.send@5', 'sink.kafka.committed'], [2, 1, 2], { commitBytes: 600 }),
    () => killedAt(['sink.kafka.fence', 'sink.kafka.born']),
    () => killedAt(['sink.commit@3', 'restore.commit']),
    () => killedAt(['checkpoint.segment.upload@3', 'checkpoint.registered@2']),
    () => killedAt(['sink.commit@3', 'restore.committed'], [2, 2, 2]),
    () => killedAt(['sink.kafka.send@4', 'sink.kafka.commit'], [3, 2, 1]),
    () => killedAt(['checkpoint.ack@6', 'sink.kafka.fence'], [1, 3, 2]),
    () => zombieAt('sink.kafka.send@4', [2, 4]),
    () => zombieAt('sink.kafka.committed@3', [4, 1]),
    () => brokerKilledAt('sink.kafka.send@4', broker),
    () => brokerKilledAt('checkpoint.segment.upload@3', broker),
    () => stoppedAt('sink.kafka.send@3'),
    () => stoppedAt('checkpoint.registered@3'),
    () => killedAfter([500 + random() * 1500, 300 + random() * 1500], [2, 3, 1]),
    () => killedAfter([500 + random() * 1500, 300 + random() * 1500], [1, 2, 4]),
    () => killedAfter([500 + random() * 1500, 300 + random() * 1500], [3, 1, 2]),
  ];
  return kinds[turn % kinds.length]!();
}

beforeAll(() => {
  if (ASKED_FOR) ensureBuilt();
}, 180_000);

it.runIf(ASKED_FOR && !NO_KAFKA)(
  'killed, stopped and taken over anywhere, Kafka → windows → Kafka writes every result once',
  { timeout: 7_200_000 },
  async () => {
    const begun = Date.now();
    const random = generator(SEED);
    const wrong: string[] = [];
    const done = new Map<string, number>();
    for (const [index, version] of VERSIONS.entries()) {
      if (COUNTS[index] === 0) continue;
      const broker = await KafkaBroker.start({ version });
      try {
        for (let turn = 0; turn < COUNTS[index]!; turn++) {
          const point = pointOf(turn, random, () => broker);
          const found = await runPoint(point, broker.brokers);
          const name = `${version}: ${point.name.replace(/after [\d ms and]+$/, 'at two random moments')}`;
          done.set(name, (done.get(name) ?? 0) + 1);
          wrong.push(...found.map((sentence) => `Kafka ${version}, ${sentence}`));
        }
      } finally {
        await broker.close();
      }
    }
    if (BY_SCRIPT && process.env.MILLRACE_KAFKA_CHAOS === undefined) writeFileSync(LOG, page(done, wrong, (Date.now() - begun) / 60_000));
    expect(wrong).toEqual([]);
  },
);

function page(done: ReadonlyMap<string, number>, wrong: readonly string[], minutes: number): string {
  const rows = [...done].map(([name, count]) => `| ${name.split(': ')[0]} | ${name.slice(name.indexOf(': ') + 2)} | ${count} |`);
  return `# Chaos: Kafka → windows → Kafka

Written by \`npm run test:chaos\` (test/chaos/kafka.test.ts). Each point is a trial: [the example](examples/kafka-windows.ts) runs as a process under load, is interrupted as the table says, goes on at another
parallelism, and in the end every result is in Kafka exactly once, which is looked up with a reader that shares nothing with it.

${wrong.length === 0 ? 'Nothing was wrong.' : wrong.map((sentence) => `- ${sentence.split('\n')[0]}`).join('\n')}

Seed ${SEED}, ${Math.round(minutes)} minutes, ${type()}, ${availableParallelism()} × ${cpus()[0]?.model.trim()}, ${Math.round(totalmem() / 2 ** 30)} GB, Node ${process.version}.

| Kafka | interrupted by | times |
|---|---|---|
${rows.join('\n')}
`;
}

/** mulberry32. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}
