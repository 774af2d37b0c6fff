// Writers and a reader that go on whatever happens to the brokers, and what must be true of what they wrote. One trial for every kind of trouble:
//
//    sends are stored once and in order; a commit that resolved is there once, one that threw is there once or not at all; the reader meets each offset
//    at most once, in order.

import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'vitest';
import type { Cluster, KafkaClient } from '../../../src/connectors/kafka/client.ts';
import { codeOf } from '../../../src/errors.ts';
import { connect, FETCH, freshTopic, record, valuesFrom } from './client-contract.ts';

/** What a commit may say of brokers that are in trouble; anything else is a defect. */
const PASSING = ['KAFKA_UNREACHABLE', 'KAFKA_FAILED', 'KAFKA_FENCED'];

/** Runs until `trouble` has resolved and some more has gone through after it. */
export async function throughTrouble(client: KafkaClient, brokers: readonly string[], trouble: Promise<void>): Promise<void> {
  const cluster = await connect(client, brokers, { timeoutMs: 20_000 });
  try {
    const topic = await freshTopic(cluster, 2);
    const stop = new AbortController();
    const sent = sending(cluster, topic, stop.signal);
    const committed = committing(cluster, topic, stop.signal);
    const read = reading(cluster, topic, stop.signal);
    await trouble;
    const passed = [sent.passed(), committed.passed(), read.passed()];
    while ([sent.passed(), committed.passed(), read.passed()].some((now, index) => now < passed[index]! + 3)) {
      if (sent.failed() ?? read.failed()) break;
      await sleep(20);
    }
    stop.abort();
    const [sends, commits, offsets] = await Promise.all([sent.ended, committed.ended, read.ended]);
    expect(await valuesFrom(cluster, topic, 0n, true, 0)).toEqual(Array.from({ length: sends }, (_, i) => `${i}`));
    const stored = await valuesFrom(cluster, topic, 0n, true, 1);
    const counts = new Map<string, number>();
    for (const value of stored) counts.set(value, (counts.get(value) ?? 0) + 1);
    for (const [value, sure] of commits) {
      if (sure) expect([value, counts.get(value)]).toEqual([value, 2]);
      else expect([undefined, 2]).toContain(counts.get(value));
    }
    expect(offsets).toEqual([...offsets].sort((a, b) => a - b));
    expect(new Set(offsets).size).toBe(offsets.length);
  } finally {
    await cluster.close();
  }
}

interface Going<T> {
  readonly passed: () => number;
  readonly failed: () => unknown;
  readonly ended: Promise<T>;
}

function going<T>(run: (pass: () => void) => Promise<T>): Going<T> {
  let passed = 0;
  let failed: unknown;
  const ended = run(() => {
    passed++;
  });
  ended.catch((error: unknown) => {
    failed = error;
  });
  return { passed: () => passed, failed: () => failed, ended };
}

/** Several at a time, to partition 0. Gives how many. */
function sending(cluster: Cluster, topic: string, signal: AbortSignal): Going<number> {
  return going(async (pass) => {
    const producer = await cluster.producer({});
    let number = 0;
    while (!signal.aborted) {
      const some: Promise<void>[] = [];
      for (let i = 0; i < 5; i++) some.push(producer.send([record(topic, 0, `${number++}`), record(topic, 0, `${number++}`)]));
      await Promise.all(some);
      pass();
      await sleep(5);
    }
    return number;
  });
}

/** Two records of one value in each transaction, to partition 1. Gives each value, and whether its commit resolved. */
function committing(cluster: Cluster, topic: string, signal: AbortSignal): Going<[string, boolean][]> {
  return going(async (pass) => {
    const producer = await cluster.transactionalProducer({ transactionalId: `tx-${randomUUID()}`, timeoutMs: 10_000 });
    const commits: [string, boolean][] = [];
    let fenced = false;
    for (let number = 0; !signal.aborted; number++) {
      const value = `t${number}`;
      let asked = false;
      try {
        if (!fenced) await producer.fence();
        fenced = true;
        asked = true;
        await producer.commit([record(topic, 1, value), record(topic, 1, value)]);
        commits.push([value, true]);
        pass();
      } catch (error) {
        expect(PASSING).toContain(codeOf(error) ?? error);
        if (asked) commits.push([value, false]);
        fenced = false;
      }
      await sleep(5);
    }
    return commits;
  });
}

/** Of partition 0. */
function reading(cluster: Cluster, topic: string, signal: AbortSignal): Going<number[]> {
  return going(async (pass) => {
    const offsets: number[] = [];
    let leader = -1;
    for (let offset = 0n; !signal.aborted; ) {
      if (leader < 0) leader = (await cluster.metadata([topic])).get(topic)!.partitions[0]!.leader;
      const [fetched] = leader < 0 ? [undefined] : await cluster.fetch(leader, [{ topic, partition: 0, offset }], FETCH);
      if (fetched === undefined || fetched.problem !== undefined) {
        expect(['moved', 'failed', undefined]).toContain(fetched?.problem?.kind);
        leader = -1;
        await sleep(50);
        continue;
      }
      for (const one of fetched.records) offsets.push(Number(one.offset));
      offset = fetched.next;
      if (fetched.records.length > 0) pass();
    }
    return offsets;
  });
}
