// Writers and their markers against Kafka in memory: who is fenced when, and what is concluded from a marker. The same against real brokers: test/protocols/05 to 12.

import { describe, expect, it } from 'vitest';
import { encodeMarker } from '../../../src/connectors/kafka/marker.ts';
import { rejection } from '../../protocols/lab.ts';
import { MemoryKafka } from './memory-cluster.ts';
import { commit, contextOf, exactlyOnce, type Writer } from './sinks.ts';

const MARKERS = 'millrace-markers';

function gate(): { readonly reached: Promise<void>; readonly opened: Promise<void>; reach(): void; open(): void } {
  let reach!: () => void;
  let open!: () => void;
  const reached = new Promise<void>((resolve) => {
    reach = resolve;
  });
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { reached, opened, reach: () => reach(), open: () => open() };
}

/** Holds the first call back that comes there. */
function holdAt(kafka: MemoryKafka, call: string): ReturnType<typeof gate> {
  const held = gate();
  let done = false;
  kafka.before = (at, subject) => {
    if (done || `${at} ${subject}` !== call) return;
    done = true;
    held.reach();
    return held.opened;
  };
  return held;
}

/** What a checkpoint keeps of the writer, and the records that are pending in it. */
interface Pending {
  readonly checkpoint: number;
  readonly data: unknown;
  readonly records: ReturnType<NonNullable<Writer<string>['encode']>>[];
}

function pending(writer: Writer<string>, checkpoint: number, values: readonly string[]): Pending {
  const records = values.map((value) => writer.encode!(value, 1));
  return { checkpoint, data: writer.snapshot!(), records };
}

/** As the runtime restores: open, marker, then what is pending behind it. */
async function restore(sink: ReturnType<typeof exactlyOnce<string>>, { checkpoint, data, records }: Pending, attempt: number): Promise<Writer<string>> {
  const writer = await sink.open(contextOf({ attempt, restored: data }));
  if ((await writer.lastCommitted()) < checkpoint) await writer.commit(checkpoint, records);
  return writer;
}

describe('a writer that was stopped in its commit and goes on when another attempt has taken over', () => {
  it.each(['store', 'end'])('cannot commit any more what the other one has committed (stopped before %s)', async (at) => {
    const kafka = new MemoryKafka().createTopic('out', 1);
    const zombie = await exactlyOnce<string>(kafka.client()).open(contextOf());
    const segment = pending(zombie, 7, ['a', 'b']);
    const held = holdAt(kafka, `${at} job-out-0`);
    const stopped = rejection(zombie.commit(7, segment.records));
    await held.reached;
    const next = await restore(exactlyOnce<string>(kafka.client()), segment, 2);
    held.open();
    expect(await stopped).toMatchObject({ code: 'KAFKA_FENCED', retryable: true });
    expect(kafka.values('out')).toEqual(['"a"', '"b"']);
    await zombie.close();
    await next.close();
  });

  it('has committed when it was faster than the fence, and the other one sees that', async () => {
    const kafka = new MemoryKafka().createTopic('out', 1);
    const zombie = await exactlyOnce<string>(kafka.client()).open(contextOf());
    const segment = pending(zombie, 7, ['a', 'b']);
    const end = holdAt(kafka, 'end job-out-0');
    const committing = zombie.commit(7, segment.records);
    await end.reached;
    const fence = holdAt(kafka, 'fence job-out-0');
    const restoring = restore(exactlyOnce<string>(kafka.client()), segment, 2);
    await fence.reached;
    end.open();
    await committing;
    fence.open();
    const next = await restoring;
    expect(kafka.values('out')).toEqual(['"a"', '"b"']);
    expect(await next.lastCommitted()).toBe(7);
    await next.close();
  });
});

describe('the marker of a writer', () => {
  it('is read behind the fence', async () => {
    const kafka = new MemoryKafka().createTopic('out', 1);
    await (await exactlyOnce(kafka.client()).open(contextOf())).close();
    kafka.calls.length = 0;
    await (await exactlyOnce(kafka.client()).open(contextOf({ attempt: 2 }))).close();
    const fence = kafka.calls.indexOf('fence job-out-0');
    const read = kafka.calls.findIndex((call) => call === `fetch ${MARKERS}` || call === `offsets ${MARKERS}`);
    expect(fence).toBeGreaterThanOrEqual(0);
    expect(read).toBeGreaterThan(fence);
    expect(kafka.calls.filter((call) => call.startsWith('groupOffsets'))).toEqual([]);
  });

  it('is read up to what was written when it began, and waits for what is undecided in front of that', async () => {
    const kafka = new MemoryKafka().createTopic('out', 1).createTopic(MARKERS, 1, { 'cleanup.policy': 'compact' });
    const sink = exactlyOnce<string>(kafka.client());
    const other = await sink.open(contextOf({ writer: '1' }));
    const first = await sink.open(contextOf());
    // Writer 1 stops in the middle of a transaction; what writer 0 commits lies behind that.
    const held = holdAt(kafka, 'end job-out-1');
    const stopped = rejection(commit(other, 3, ['other']));
    await held.reached;
    await commit(first, 3, ['a']);
    let opened = false;
    const opening = exactlyOnce<string>(kafka.client())
      .open(contextOf({ attempt: 2 }))
      .then((writer) => {
        opened = true;
        return writer;
      });
    await new Promise((resolve) => setTimeout(resolve, 150));
    expect(opened).toBe(false);
    // As the broker does when it was open for too long.
    kafka.fence('job-out-1');
    held.open();
    const next = await opening;
    expect(await next.lastCommitted()).toBe(3);
    expect((await stopped).code).toBe('KAFKA_FENCED');
    await next.close();
  });

  it('stays in its partition when its topic grows', async () => {
    const kafka = new MemoryKafka().createTopic('out', 1).createTopic(MARKERS, 1, { 'cleanup.policy': 'compact' });
    const first = await exactlyOnce<string>(kafka.client()).open(contextOf());
    await commit(first, 3, ['a']);
    await first.close();
    kafka.grow(MARKERS, 50);
    const second = await exactlyOnce<string>(kafka.client()).open(contextOf({ attempt: 2 }));
    expect(await second.lastCommitted()).toBe(3);
    await commit(second, 4, ['b']);
    await second.close();
    expect(kafka.partition(MARKERS, 0).entries.filter(({ control }) => !control)).toHaveLength(3);
  });

  it('is found when what was in front of it has been compacted or deleted', async () => {
    const kafka = new MemoryKafka().createTopic('out', 1).createTopic(MARKERS, 1, { 'cleanup.policy': 'compact' });
    const first = await exactlyOnce<string>(kafka.client()).open(contextOf());
    const data = first.snapshot!();
    await commit(first, 3, ['a']);
    await first.close();
    const marker = kafka.committed(MARKERS).at(-1)!;
    kafka.partition(MARKERS, 0).cutTo(marker.offset);
    const second = await exactlyOnce<string>(kafka.client()).open(contextOf({ attempt: 2, restored: data }));
    expect(await second.lastCommitted()).toBe(3);
    await second.close();
  });

  it('of another lineage, or of somebody else, is none', async () => {
    const kafka = new MemoryKafka().createTopic('out', 1).createTopic(MARKERS, 1, { 'cleanup.policy': 'compact' });
    kafka.produce(MARKERS, 0, ['no marker', String(encodeMarker({ checkpoint: 9, chunk: 1, records: 1, whole: 9 }))], { key: 'out/another/0' });
    kafka.produce(MARKERS, 0, ['no marker', '{"checkpoint":-1,"chunk":0,"records":0,"whole":0}', 'null'], { key: 'out/one/0' });
    const writer = await exactlyOnce<string>(kafka.client()).open(contextOf());
    expect(await writer.lastCommitted()).toBe(0);
    await writer.close();
  });
});

describe('a marker that was deleted', () => {
  async function lost(): Promise<{ kafka: MemoryKafka; segment: Pending }> {
    const kafka = new MemoryKafka().createTopic('out', 1);
    const writer = await exactlyOnce<string>(kafka.client()).open(contextOf());
    await commit(writer, 6, ['before']);
    const segment = pending(writer, 7, ['pending']);
    await writer.commit(7, segment.records);
    await writer.close();
    kafka.topics.delete(MARKERS);
    return { kafka, segment };
  }

  it('fails the job, for good, and says which topic', async () => {
    const { kafka, segment } = await lost();
    for (const attempt of [2, 3]) {
      const error = await rejection(restore(exactlyOnce<string>(kafka.client()), segment, attempt));
      expect(error).toMatchObject({ code: 'MARKER_LOST', retryable: false });
      expect(error.message).toMatch(/checkpoint 6.*'millrace-markers'.*onMarkerLost/);
    }
    expect(kafka.values('out')).toEqual(['"before"', '"pending"']);
  });

  it("writes what is pending again with onMarkerLost: 'commit'", async () => {
    const { kafka, segment } = await lost();
    const writer = await restore(exactlyOnce<string>(kafka.client(), { onMarkerLost: 'commit' }), segment, 2);
    expect(kafka.values('out')).toEqual(['"before"', '"pending"', '"pending"']);
    await commit(writer, 8, ['new']);
    await writer.close();
    // From then on there is a marker again.
    await (await restore(exactlyOnce<string>(kafka.client()), { ...segment, checkpoint: 8, data: writer.snapshot!() }, 3)).close();
    expect(kafka.values('out').slice(3)).toEqual(['"new"']);
  });

  it("drops what is pending with onMarkerLost: 'discard', and nothing that comes later", async () => {
    const { kafka, segment } = await lost();
    const writer = await restore(exactlyOnce<string>(kafka.client(), { onMarkerLost: 'discard' }), segment, 2);
    expect(await writer.lastCommitted()).toBe(7);
    await commit(writer, 8, ['new']);
    expect(kafka.values('out')).toEqual(['"before"', '"pending"', '"new"']);
    await writer.close();
  });

  it('is seen also when a younger marker of the same writer stands in a topic made anew', async () => {
    const { kafka, segment } = await lost();
    // The writer was started without its snapshot in between.
    await (await exactlyOnce<string>(kafka.client()).open(contextOf({ attempt: 2 }))).close();
    expect((await rejection(restore(exactlyOnce<string>(kafka.client()), segment, 3))).code).toBe('MARKER_LOST');
  });

  it('is not looked for in another topic', async () => {
    const kafka = new MemoryKafka().createTopic('out', 1);
    const writer = await exactlyOnce<string>(kafka.client()).open(contextOf());
    const segment = pending(writer, 7, ['pending']);
    await writer.close();
    const error = await rejection(restore(exactlyOnce<string>(kafka.client(), { markerTopic: 'others' }), segment, 2));
    expect(error.code).toBe('MARKER_LOST');
    expect(error.message).toContain("written to 'millrace-markers' before");
  });
});

describe('a fork', () => {
  it('fences the original, and its writers of both lineages commit under one transactional id', async () => {
    const kafka = new MemoryKafka().createTopic('out', 1);
    const original = await exactlyOnce<string>(kafka.client()).open(contextOf());
    const segment = pending(original, 7, ['pending']);
    const fork = exactlyOnce<string>(kafka.client());
    const own = await fork.open(contextOf({ lineage: 'two', attempt: 5 }));
    const adopted = await fork.open(contextOf({ attempt: 5, restored: segment.data }));
    await adopted.commit(7, segment.records);
    await commit(own, 8, ['new']);
    await adopted.close();
    await commit(own, 9, ['newer']);
    expect((await rejection(commit(original, 8, ['of the original']))).code).toBe('KAFKA_FENCED');
    expect(kafka.values('out')).toEqual(['"pending"', '"new"', '"newer"']);
    expect(kafka.calls.filter((call) => call === 'fence job-out-0')).toHaveLength(2);
    await own.close();
    await original.close();
  });

  it('fences also the transactional id that the writer had under another prefix', async () => {
    const kafka = new MemoryKafka().createTopic('out', 1);
    const original = await exactlyOnce<string>(kafka.client(), { transactionalIdPrefix: 'before' }).open(contextOf());
    const segment = pending(original, 7, ['pending']);
    const held = holdAt(kafka, 'end before-out-0');
    const stopped = rejection(original.commit(7, segment.records));
    await held.reached;
    const renamed = await restore(exactlyOnce<string>(kafka.client(), { transactionalIdPrefix: 'after' }), segment, 2);
    held.open();
    expect((await stopped).code).toBe('KAFKA_FENCED');
    expect(kafka.values('out')).toEqual(['"pending"']);
    await renamed.close();
    await original.close();
  });
});

it('writers of one attempt share a connection, which is closed with the last of them; one that does not open closes what it had', async () => {
  const kafka = new MemoryKafka().createTopic('out', 1);
  const sink = exactlyOnce<string>(kafka.client());
  const writers = await Promise.all(['0', '1', '2'].map((writer) => sink.open(contextOf({ writer }))));
  expect(kafka.calls.filter((call) => call.startsWith('connect'))).toHaveLength(1);
  for (const writer of writers) await writer.close();
  kafka.before = (call) => {
    if (call === 'fence') throw new Error('no coordinator');
  };
  await expect(sink.open(contextOf({ attempt: 2 }))).rejects.toThrow('no coordinator');
  kafka.before = () => {};
  await (await sink.open(contextOf({ attempt: 2 }))).close();
  expect(kafka.calls.filter((call) => call.startsWith('connect'))).toHaveLength(3);
});
