// Protocols 5, 6, 7 and 12 against a real broker: writers of the Kafka sink as the runtime opens them, a plain kafkajs reader as the judge. Markers and fences against
// Kafka in memory, with everything that a broker cannot be made to do: test/connectors/kafka/sink-fencing.test.ts.

import { randomBytes } from 'node:crypto';
import { Kafka, logLevel } from 'kafkajs';
import { describe, expect, it } from 'vitest';
import type { KafkaAdapter } from '../../src/connectors/kafka/client.ts';
import { kafkajs } from '../../src/connectors/kafka/kafkajs-client.ts';
import type { KafkaRow } from '../../src/connectors/kafka/rows.ts';
import { type KafkaSinkOptions, kafkaSink } from '../../src/connectors/kafka/sink.ts';
import type { SinkContext, TransactionalSink } from '../../src/graph/sink.ts';
import { type Io, systemIo } from '../../src/runtime/io.ts';
import { contextOf, type Writer } from '../connectors/kafka/sinks.ts';
import { readCommitted } from '../e2e/kafka-trial.ts';
import { kafkaForTests, NO_KAFKA } from '../services/kafka.ts';
import { rejection } from './lab.ts';

/** A topic and a marker topic of its own. */
class Place {
  readonly kafka: Kafka;
  readonly brokers: string[];
  readonly topic = `p${randomBytes(5).toString('hex')}`;
  readonly markers = `${this.topic}-markers`;

  constructor(brokers: string[]) {
    this.brokers = brokers;
    this.kafka = new Kafka({ brokers, logLevel: logLevel.NOTHING, retry: { initialRetryTime: 50, retries: 30, maxRetryTime: 500 } });
  }

  static async make(partitions = 1): Promise<Place> {
    const place = new Place(await kafkaForTests());
    await place.#admin(async (admin) => {
      await admin.createTopics({ topics: [{ topic: place.topic, numPartitions: partitions }], waitForLeaders: false });
      // A broker may not have heard of it yet, and kafkajs does not wait for that.
      while ((await admin.fetchTopicMetadata({ topics: [place.topic] }).catch(() => undefined)) === undefined);
    });
    return place;
  }

  async #admin<T>(work: (admin: ReturnType<Kafka['admin']>) => Promise<T>): Promise<T> {
    const admin = this.kafka.admin();
    await admin.connect();
    try {
      return await work(admin);
    } finally {
      await admin.disconnect();
    }
  }

  /** `hold`: what a step waits for. */
  sink(options: Partial<KafkaSinkOptions<string>> = {}, hold?: (step: string) => Promise<void> | undefined): TransactionalSink<string, KafkaRow> {
    const io: Io = { ...systemIo(), ...(hold === undefined ? {} : { step: hold }) };
    const given = { brokers: this.brokers, topic: this.topic, markerTopic: this.markers, transactionalIdPrefix: this.topic, ...options };
    return kafkaSink<string>(given, { client: () => kafkajs() as KafkaAdapter, io }) as TransactionalSink<string, KafkaRow>;
  }

  open(context: Partial<SinkContext> = {}, ...how: Parameters<Place['sink']>): Promise<Writer<string>> {
    return this.sink(...how).open(contextOf(context));
  }

  async values(): Promise<string[]> {
    return (await readCommitted(this.kafka, [this.topic])).get(this.topic)!.map((value) => JSON.parse(value) as string);
  }

  async deleteMarkers(): Promise<void> {
    await this.#admin(async (admin) => {
      await admin.deleteTopics({ topics: [this.markers] });
      while ((await admin.listTopics()).includes(this.markers)) await new Promise((resolve) => setTimeout(resolve, 20));
    });
  }

  groups(): Promise<string[]> {
    return this.#admin(async (admin) => (await admin.listGroups()).groups.map(({ groupId }) => groupId).filter((id) => id.includes(this.topic)));
  }
}

/** Holds the first one that comes to the step until it is let go. */
function stopAt(step: string): { readonly reached: Promise<void>; readonly hold: (at: string) => Promise<void> | undefined; letGo(): void } {
  let reach!: () => void;
  let letGo!: () => void;
  const reached = new Promise<void>((resolve) => {
    reach = resolve;
  });
  const gone = new Promise<void>((resolve) => {
    letGo = resolve;
  });
  let done = false;
  const hold = (at: string): Promise<void> | undefined => {
    if (done || at !== step) return undefined;
    done = true;
    reach();
    return gone;
  };
  return { reached, hold, letGo: () => letGo() };
}

const rowsOf = (writer: Writer<string>, values: readonly string[]): KafkaRow[] => values.map((value) => writer.encode!(value, 1_700_000_000_000));

async function takeOver(writer: Writer<string>, checkpoint: number, rows: KafkaRow[]): Promise<void> {
  if ((await writer.lastCommitted()) < checkpoint) await writer.commit(checkpoint, rows);
}

describe.skipIf(NO_KAFKA)('fencing (protocols 5)', () => {
  it('A: a zombie stopped between send and commit commits nothing once another attempt has fenced it', async () => {
    const place = await Place.make();
    const stop = stopAt('sink.kafka.commit');
    const zombie = await place.open({}, {}, stop.hold);
    const rows = rowsOf(zombie, ['a', 'b']);
    const data = zombie.snapshot!();
    const resumed = rejection(zombie.commit(7, rows));
    await stop.reached;
    const next = await place.open({ attempt: 2, restored: data });
    await takeOver(next, 7, rows);
    stop.letGo();
    expect(await resumed).toMatchObject({ code: 'KAFKA_FENCED', retryable: true });
    expect(await place.values()).toEqual(['a', 'b']);
    await zombie.close();
    await next.close();
  });

  it('A: a marker that is read in front of the fence would be one too old: the zombie commits in between, and is seen', async () => {
    const place = await Place.make();
    const stop = stopAt('sink.kafka.commit');
    const zombie = await place.open({}, {}, stop.hold);
    const rows = rowsOf(zombie, ['a', 'b']);
    const data = zombie.snapshot!();
    const committing = zombie.commit(7, rows);
    await stop.reached;
    const fence = stopAt('sink.kafka.fence');
    const opening = place.open({ attempt: 2, restored: data }, {}, fence.hold);
    await fence.reached;
    stop.letGo();
    await committing;
    fence.letGo();
    const next = await opening;
    expect(await next.lastCommitted()).toBe(7);
    await takeOver(next, 7, rows);
    expect(await place.values()).toEqual(['a', 'b']);
    await zombie.close();
    await next.close();
  });

  it('B and D: what an instance takes over from writer 3 it commits as writer 3, behind a fence and a marker of that one', async () => {
    const place = await Place.make();
    const stop = stopAt('sink.kafka.commit');
    const zombie = await place.open({ writer: '3' }, {}, stop.hold);
    const rows = rowsOf(zombie, ['of three']);
    const data = zombie.snapshot!();
    const resumed = rejection(zombie.commit(7, rows));
    await stop.reached;
    const sink = place.sink();
    // At once, as the runtime opens them: the one may have to wait for the fence of the other.
    const [own, adopted] = await Promise.all([
      sink.open(contextOf({ writer: '1', attempt: 2 })),
      sink.open(contextOf({ writer: '3', attempt: 2, restored: data })),
    ]);
    await own.commit(7, rowsOf(own, ['of one']));
    expect(await adopted.lastCommitted()).toBe(0);
    await takeOver(adopted, 7, rows);
    stop.letGo();
    expect((await resumed).code).toBe('KAFKA_FENCED');
    expect((await place.values()).sort()).toEqual(['of one', 'of three']);
    for (const writer of [zombie, own, adopted]) await writer.close();
  });
});

describe.skipIf(NO_KAFKA)('markers (protocols 6)', () => {
  it('need no group, and a deleted marker topic fails the job for good, or is followed by the policy', async () => {
    const place = await Place.make();
    const first = await place.open();
    await first.commit(6, rowsOf(first, ['before']));
    const data = first.snapshot!();
    const rows = rowsOf(first, ['pending']);
    await first.commit(7, rows);
    await first.close();
    expect(await place.groups()).toEqual([]);
    await place.deleteMarkers();
    expect(await rejection(place.open({ attempt: 2, restored: data }))).toMatchObject({ code: 'MARKER_LOST', retryable: false });
    const discarding = await place.open({ attempt: 3, restored: data }, { onMarkerLost: 'discard' });
    await takeOver(discarding, 7, rows);
    await discarding.commit(8, rowsOf(discarding, ['new']));
    expect(await place.values()).toEqual(['before', 'pending', 'new']);
    const again = discarding.snapshot!();
    await discarding.close();
    // There is a marker again, and no policy is needed.
    const next = await place.open({ attempt: 4, restored: again });
    expect(await next.lastCommitted()).toBe(8);
    await next.close();
  });
});

describe.skipIf(NO_KAFKA)('chunks (protocols 12)', () => {
  it('of a segment that was interrupted are not written again, though the next attempt cuts elsewhere', async () => {
    const place = await Place.make(3);
    let sends = 0;
    const values = Array.from({ length: 40 }, (_, i) => `record ${i}`);
    const first = await place.open({}, { commitBytes: 1200 }, (step) => {
      if (step !== 'sink.kafka.commit') return undefined;
      sends += 1;
      return sends === 3 ? Promise.reject(new Error('interrupted')) : undefined;
    });
    const rows = rowsOf(first, values);
    const data = first.snapshot!();
    await expect(first.commit(7, rows)).rejects.toThrow('interrupted');
    await first.close();
    const second = await place.open({ attempt: 2, restored: data }, { commitBytes: 700 });
    expect(await second.lastCommitted()).toBe(0);
    await takeOver(second, 7, rows);
    expect((await place.values()).sort()).toEqual([...values].sort());
    expect(await second.lastCommitted()).toBe(7);
    await second.close();
  });

  it('that are open for longer than a transaction may be are aborted by the broker, and written once by the next attempt', async () => {
    const place = await Place.make();
    const stop = stopAt('sink.kafka.commit');
    const first = await place.open({}, { transactionTimeout: 1000 }, stop.hold);
    const rows = rowsOf(first, ['a']);
    const data = first.snapshot!();
    const late = rejection(first.commit(7, rows));
    await stop.reached;
    expect(await place.values()).toEqual([]);
    await new Promise((resolve) => setTimeout(resolve, 2500));
    stop.letGo();
    expect((await late).retryable).toBe(true);
    await first.close();
    const second = await place.open({ attempt: 2, restored: data }, { transactionTimeout: 1000 });
    await takeOver(second, 7, rows);
    expect(await place.values()).toEqual(['a']);
    await second.close();
  });
});
