// What becomes of a job that reads from Kafka and writes to it where something is wrong with messages, topics, offsets, rights or brokers: the tables of
// docs/connectors-kafka.md, a test for each line, against real brokers.

import { connect, createServer } from 'node:net';
import { avro, type DeadLetter, type Format, type Job, job, json, type Logger, type RunOptions, type Source, text } from 'millrace';
import { type KafkaSinkOptions, type KafkaSourceOptions, kafka, kafkajs } from 'millrace/kafka';
import { describe, expect, it, onTestFinished } from 'vitest';
import type { KafkaAdapter } from '../../../src/connectors/kafka/client.ts';
import { kafkaSource } from '../../../src/connectors/kafka/source.ts';
import { type Io, systemIo } from '../../../src/runtime/io.ts';
import { readCommitted } from '../../e2e/kafka-trial.ts';
import { LONG } from '../../long.ts';
import { Conditions, checkpointsIn, ends, RESTARTS, rejection, Seen, temporaryFolder, Watch } from '../../protocols/lab.ts';
import { KAFKA_LIMITED, KAFKA_USER, KafkaBroker, kafkaForTests, NO_KAFKA, NO_OWN_KAFKA, securedKafkaForTests } from '../../services/kafka.ts';
import { freePorts } from '../../services/ports.ts';
import { registryServer } from '../registry-server.ts';
import { Topics, topicsOf } from './topics.ts';

const topics = topicsOf(kafkaForTests);
const numbered = (count: number, from = 0): string[] => Array.from({ length: count }, (_, i) => `v${from + i}`);

/** Of this file: transactions of other tests that are open hold nobody back here. */
let markers: Promise<string> | undefined;
function markerTopic(): Promise<string> {
  markers ??= topics().then((all) => all.create(1, { configs: { 'cleanup.policy': 'compact' } }));
  return markers;
}

interface Pipe {
  readonly name: string;
  readonly from: string;
  readonly to: string;
  readonly source?: Partial<KafkaSourceOptions<string>>;
  readonly sink?: Partial<KafkaSinkOptions<string>>;
  /** Instead of `kafka.source()`. */
  readonly reads?: Source<string>;
  readonly seen?: Seen<string>;
}

/** From topic to topic; what is written begins with the job's name. */
async function piped({ name, from, to, source, sink, reads, seen }: Pipe): Promise<Job> {
  const { brokers } = await topics();
  const connection = { brokers, format: text() };
  const markers = sink?.guarantee === 'at-least-once' ? {} : { markerTopic: await markerTopic() };
  return job(name, (env) => {
    const input = env.source('in', reads ?? kafka.source<string>({ ...connection, topic: from, ...source })).map((value) => `${name} ${value}`);
    if (seen !== undefined) input.sink('seen', seen);
    input.sink('out', kafka.sink({ ...connection, topic: to, ...markers, ...sink }));
  });
}

async function written(topic: string): Promise<string[]> {
  return (await readCommitted((await topics()).kafka, [topic])).get(topic)!;
}

/** What was warned of, and promises for what will be. */
class Warnings {
  readonly said: string[] = [];
  readonly #conditions = new Conditions();
  readonly logger: Logger = {
    debug() {},
    info() {},
    error() {},
    warn: (fields: unknown, said?: string) => {
      this.said.push(said ?? String(fields));
      this.#conditions.changed();
    },
    child: () => this.logger,
  };

  until(part: string): Promise<void> {
    return this.#conditions.until(() => this.said.some((said) => said.includes(part)));
  }
}

async function options(given: RunOptions = {}): Promise<RunOptions> {
  return { checkpoints: { ...checkpointsIn(await temporaryFolder()), every: 30 }, restarts: RESTARTS, ...given };
}

/** A clock that runs so many times faster. */
function faster(times: number): Io {
  const io = systemIo();
  const begun = Date.now();
  return {
    ...io,
    clock: { ...io.clock, now: () => begun + (Date.now() - begun) * times, setTimeout: (fn, ms) => setTimeout(fn, ms / times) },
  };
}

/** kafkajs that tries for so many milliseconds instead of 30,000. */
function impatient(timeoutMs: number): KafkaAdapter {
  const adapter = kafkajs() as KafkaAdapter;
  return { ...adapter, connect: (settings) => adapter.connect({ ...settings, timeoutMs }) };
}

const POLICIES = ['fail', 'earliest', 'latest'] as const;

describe.skipIf(NO_KAFKA)('from Kafka to Kafka:', () => {
  it('a poison message becomes a dead letter with its bytes that names topic, partition and offset, and the job goes on', async () => {
    const all = await topics();
    const [from, to] = [await all.create(2), await all.create(1)];
    await all.write(from, ['{"n":1}', 'poison', '{"n":3}', { value: '{', partition: 1 }]);
    const letters = new Seen<DeadLetter>();
    const markerTopicName = await markerTopic();
    await job('poisoned', (env) => {
      const input = env.source('in', kafka.source<{ n: number }>({ brokers: all.brokers, topic: from, until: 'end' }));
      input.sink('out', kafka.sink({ brokers: all.brokers, topic: to, markerTopic: markerTopicName }));
      input.deadLetters().sink('letters', letters);
    }).run(await options());
    expect(await written(to)).toEqual(['{"n":1}', '{"n":3}']);
    const told = letters.values.map(({ record, error }) => [Buffer.from(record as Uint8Array).toString(), error.code, error.message.split(':')[0]]);
    expect(told.sort()).toEqual([
      ['poison', 'RECORD_UNDECODABLE', `The record at offset 1 of partition 0 of '${from}'`],
      ['{', 'RECORD_UNDECODABLE', `The record at offset 0 of partition 1 of '${from}'`],
    ]);
  });

  it("a schema that changes mid-stream is read on in the reader's own; what does not resolve to it are dead letters", async () => {
    const all = await topics();
    const [from, to] = [await all.create(1), await all.create(1)];
    const registry = await registryServer();
    const order = (...fields: object[]) => ({ type: 'record', name: 'Order', fields: [{ name: 'id', type: 'int' }, ...fields] });
    const writer = async <T>(schema: object): Promise<Format<T>> => {
      registry.add(`${from}-value`, schema);
      const format = avro<T>({ registry: registry.url, topic: from, schema });
      await format.open!();
      return format;
    };
    const first = await writer<{ id: number }>(order());
    const second = await writer<{ id: number; note: string }>(order({ name: 'note', type: 'string' }));
    const broken = await writer<{ id: string }>({ type: 'record', name: 'Order', fields: [{ name: 'id', type: 'string' }] });
    const bytes = [first.encode({ id: 1 }), second.encode({ id: 2, note: 'new' }), broken.encode({ id: 'three' }), second.encode({ id: 4, note: 'newer' })];
    await all.write(
      from,
      bytes.map((value) => ({ value: Buffer.from(value) })),
    );
    const letters = new Seen<DeadLetter>();
    const own = order({ name: 'note', type: 'string', default: '' });
    const markerTopicName = await markerTopic();
    await job('evolving', (env) => {
      const format = avro<{ id: number; note: string }>({ registry: registry.url, schema: own });
      const input = env.source('in', kafka.source({ brokers: all.brokers, topic: from, until: 'end', format }));
      input.sink('out', kafka.sink({ brokers: all.brokers, topic: to, markerTopic: markerTopicName, format: json() }));
      input.deadLetters().sink('letters', letters);
    }).run(await options());
    expect((await written(to)).map((value) => JSON.parse(value))).toEqual([
      { id: 1, note: '' },
      { id: 2, note: 'new' },
      { id: 4, note: 'newer' },
    ]);
    expect(letters.values.map(({ error }) => [error.code, error.message.includes('offset 2 of partition 0')])).toEqual([['RECORD_UNDECODABLE', true]]);
  });

  it('records that retention took fail the job for good with KAFKA_OFFSET_LOST, or are passed over as onOffsetLost says', async () => {
    const all = await topics();
    const [from, to] = [await all.create(1), await all.create(1)];
    await all.write(from, numbered(10));
    const runs = await Promise.all(
      POLICIES.map(async (policy) => {
        const warnings = new Warnings();
        const seen = new Seen<string>();
        const given = await options({ logger: warnings.logger, restarts: false });
        const start = async () => ends(await (await piped({ name: policy, from, to, seen, source: { onOffsetLost: policy } })).start(given));
        const running = await start();
        await seen.until((values) => values.length === 10);
        await running.stop();
        return { warnings, seen, start };
      }),
    );
    await all.write(from, numbered(10, 10));
    await all.deleteBefore(from, 0, 15);
    const [fail, earliest, latest] = await Promise.all(runs.map(async ({ start }) => start()));
    const failure = await rejection(fail!.finished);
    expect(failure).toMatchObject({ code: 'KAFKA_OFFSET_LOST', retryable: false });
    expect(failure.message).toContain(`Partition 0 of '${from}' was to be read from offset 10 and holds 15 to 20`);
    await runs[1]!.warnings.until('Reading goes on at 15, as onOffsetLost says.');
    await runs[2]!.warnings.until('Reading goes on at 20, as onOffsetLost says.');
    await all.write(from, ['later']);
    await runs[1]!.seen.until((values) => values.includes('earliest later'));
    await runs[2]!.seen.until((values) => values.includes('latest later'));
    await Promise.all([earliest!.stop(), latest!.stop()]);
    const before = numbered(10);
    const each = (policy: string, values: readonly string[]) => values.map((value) => `${policy} ${value}`);
    expect((await written(to)).sort()).toEqual(
      [...each('fail', before), ...each('earliest', [...before, ...numbered(5, 15), 'later']), ...each('latest', [...before, 'later'])].sort(),
    );
  });

  it('a data topic that is deleted and created again fails the job for good with TOPIC_RECREATED, or is read from its beginning or its end as onOffsetLost says', async () => {
    const all = await topics();
    const [from, to] = [await all.create(1), await all.create(1)];
    await all.write(from, numbered(3));
    const runs = await Promise.all(
      POLICIES.map(async (policy) => {
        const warnings = new Warnings();
        const seen = new Seen<string>();
        const running = ends(
          await (await piped({ name: policy, from, to, seen, source: { onOffsetLost: policy } })).start(
            await options({ logger: warnings.logger, restarts: false }),
          ),
        );
        await seen.until((values) => values.length === 3);
        return { warnings, seen, running };
      }),
    );
    while ((await written(to)).length < 9);
    await all.recreate(from, 1);
    await all.write(from, ['new']);
    const [fail, earliest, latest] = runs;
    const failure = await rejection(fail!.running.finished);
    expect(failure).toMatchObject({ code: 'TOPIC_RECREATED', retryable: false });
    expect(failure.message).toContain(`The topic '${from}' was deleted and created anew: partition 0 was read up to offset 3`);
    await earliest!.warnings.until('Reading goes on at 0, as onOffsetLost says.');
    await latest!.warnings.until('as onOffsetLost says.');
    await all.write(from, ['newer']);
    await earliest!.seen.until((values) => values.includes('earliest newer'));
    await latest!.seen.until((values) => values.includes('latest newer'));
    await Promise.all([earliest!.running.stop(), latest!.running.stop()]);
    const rows = await written(to);
    expect(rows.filter((row) => row.startsWith('fail'))).toEqual(numbered(3).map((value) => `fail ${value}`));
    expect(rows.filter((row) => row.startsWith('earliest'))).toEqual([...numbered(3), 'new', 'newer'].map((value) => `earliest ${value}`));
    // Whether 'new' was written before the end was asked for, nobody can say.
    expect(rows.filter((row) => row.startsWith('latest') && row !== 'latest new')).toEqual([...numbered(3), 'newer'].map((value) => `latest ${value}`));
  });

  it('a data topic that is deleted fails the job for good with KAFKA_TOPIC_MISSING after ten seconds, or is waited for as onOffsetLost says', async () => {
    const all = await topics();
    const [from, to] = [await all.create(1), await all.create(1)];
    await all.write(from, numbered(3));
    const io = faster(10);
    const runs = await Promise.all(
      (['fail', 'earliest'] as const).map(async (policy) => {
        const warnings = new Warnings();
        const seen = new Seen<string>();
        const source = { brokers: all.brokers, topic: from, format: text(), onOffsetLost: policy };
        const reads = kafkaSource<string>(source, { client: () => kafkajs() as KafkaAdapter, io }) as Source<string>;
        const running = ends(await (await piped({ name: policy, from, to, seen, reads })).start(await options({ logger: warnings.logger, restarts: false })));
        await seen.until((values) => values.length === 3);
        return { warnings, seen, running };
      }),
    );
    while ((await written(to)).length < 6);
    await all.admin.deleteTopics({ topics: [from] });
    const [fail, earliest] = runs;
    const failure = await rejection(fail!.running.finished);
    expect(failure).toMatchObject({ code: 'KAFKA_TOPIC_MISSING', retryable: false });
    expect(failure.message).toContain(`The brokers do not know partition 0 of '${from}' any more, which was read up to offset 3`);
    await earliest!.warnings.until('It is waited for.');
    await all.create(1, { name: from });
    await all.write(from, ['new']);
    await earliest!.seen.until((values) => values.includes('earliest new'));
    await earliest!.running.stop();
    const rows = await written(to);
    expect(rows.sort()).toEqual(['earliest new', ...numbered(3).flatMap((value) => [`fail ${value}`, `earliest ${value}`])].sort());
  });

  it('a named topic that is not there fails the job for good with KAFKA_TOPIC_MISSING: of the source after three seconds, of the sink at once', async () => {
    const all = await topics();
    const there = await all.create(1);
    const source = { brokers: all.brokers, topic: 'nowhere', format: text() };
    const reads = kafkaSource<string>(source, { client: () => kafkajs() as KafkaAdapter, io: faster(10) }) as Source<string>;
    const watch = new Watch();
    const given = await options({ onEvent: watch.onEvent });
    const missing = [
      rejection((await piped({ name: 'unread', from: 'nowhere', to: there, reads })).run(given)),
      rejection((await piped({ name: 'unwritten', from: there, to: 'nowhere' })).run(given)),
    ];
    const [unread, unwritten] = await Promise.all(missing);
    expect(unread).toMatchObject({ code: 'KAFKA_TOPIC_MISSING', retryable: false, uid: 'in' });
    expect(unwritten).toMatchObject({ code: 'KAFKA_TOPIC_MISSING', retryable: false, uid: 'out' });
    for (const { message } of [unread!, unwritten!]) expect(message).toContain("'nowhere'");
    expect(watch.of('restart')).toEqual([]);
  });

  it('a record that is too large or too far ahead for its topic is refused when it is written, by the policy of the sink, also of a topic that a function names', async () => {
    const all = await topics();
    const [from, to] = [await all.create(1), await all.create(1, { configs: { 'max.message.bytes': '2000' } })];
    const hours = 3_600_000;
    // Together they are more than the topic takes in a batch.
    const fitting = Array.from({ length: 5 }, (_, i) => ({ value: `${i}`.repeat(900) }));
    await all.write(from, [{ value: 'x'.repeat(1999) }, ...fitting, { value: 'ahead', timestamp: Date.now() + hours / 2 }, { value: 'far ahead' }]);
    const letters = new Seen<DeadLetter>();
    const markerTopicName = await markerTopic();
    const watch = new Watch();
    await job('refusing', (env) => {
      const source = kafka.source<string>({ brokers: all.brokers, topic: from, until: 'end', format: text() });
      const timestamp = (value: string): number => (value === 'far ahead' ? Date.now() + 2 * hours : Date.now());
      const sink = kafka.sink<string>({ brokers: all.brokers, topic: () => to, markerTopic: markerTopicName, format: text() });
      const out = env.source('in', source, { timestamp }).sink('out', sink).onError('skip');
      out.deadLetters().sink('letters', letters);
    }).run(await options({ onEvent: watch.onEvent }));
    expect(await written(to)).toEqual([...fitting.map(({ value }) => value), 'ahead']);
    const told = new Map(letters.values.map(({ record, error }) => [String(record).slice(0, 3), error.code]));
    expect(told).toEqual(
      new Map([
        ['xxx', 'KAFKA_RECORD_TOO_LARGE'],
        ['far', 'KAFKA_TIMESTAMP'],
      ]),
    );
    // Nothing was known of the topic before a record had named it.
    expect(watch.of('restart').map(({ error }) => error.code)).toEqual(['KAFKA_RECORD_TOO_LARGE']);
  });

  it('an output topic that is deleted fails the job for good with KAFKA_TOPIC_MISSING, and what was not committed goes into the one that is created instead', async () => {
    const all = await topics();
    const [from, to] = [await all.create(1), await all.create(1)];
    const given = await options();
    const seen = new Seen<string>();
    const define = () => piped({ name: 'kept', from, to, seen });
    const running = ends(await (await define()).start(given));
    await all.write(from, ['a', 'b']);
    await seen.until((values) => values.length === 2);
    while ((await written(to)).length < 2);
    await all.admin.deleteTopics({ topics: [to] });
    await all.write(from, ['c']);
    const failure = await rejection(running.finished);
    expect(failure).toMatchObject({ code: 'KAFKA_TOPIC_MISSING', retryable: false, uid: 'out' });
    expect(failure.message).toContain(`'${to}', which does not exist`);
    await all.create(2, { name: to });
    const again = ends(await (await define()).start(given));
    await all.write(from, ['d']);
    await seen.until((values) => values.includes('kept d'));
    await again.stop();
    expect((await written(to)).sort()).toEqual(['kept c', 'kept d']);
  });

  it('an output topic that is deleted under an at-least-once sink fails the job with KAFKA_TOPIC_MISSING when it has been tried for long enough', async () => {
    const all = await topics();
    const [from, to] = [await all.create(1), await all.create(1)];
    const seen = new Seen<string>();
    const pipe = await piped({ name: 'plain', from, to, seen, sink: { guarantee: 'at-least-once', client: impatient(1_000) } });
    const running = ends(await pipe.start(await options()));
    await all.write(from, ['a']);
    while ((await written(to)).length < 1);
    await all.admin.deleteTopics({ topics: [to] });
    await all.write(from, ['b']);
    expect(await rejection(running.finished)).toMatchObject({ code: 'KAFKA_TOPIC_MISSING', retryable: false });
  });

  it('a deleted marker topic fails the job for good with MARKER_LOST at its next start, unless onMarkerLost says what to do', async () => {
    const all = await topics();
    const [from, to] = [await all.create(1), await all.create(1)];
    const own = await all.create(1, { configs: { 'cleanup.policy': 'compact' } });
    const given = await options();
    const seen = new Seen<string>();
    const start = async (sink: Partial<KafkaSinkOptions<string>> = {}) =>
      ends(await (await piped({ name: 'unmarked', from, to, seen, sink: { markerTopic: own, ...sink } })).start(given));
    const first = await start();
    await all.write(from, ['a']);
    await seen.until((values) => values.length === 1);
    await first.stop();
    await all.admin.deleteTopics({ topics: [own] });
    const failure = await rejection(start().then((running) => running.finished));
    expect(failure).toMatchObject({ code: 'MARKER_LOST', retryable: false });
    expect(failure.message).toContain(`in the topic '${own}'`);
    const again = await start({ onMarkerLost: 'discard' });
    await all.write(from, ['b']);
    await seen.until((values) => values.includes('unmarked b'));
    await again.stop();
    expect(await written(to)).toEqual(['unmarked a', 'unmarked b']);
  });

  it('a wrong password fails the job for good with KAFKA_AUTHENTICATION, without another try', async () => {
    const all = await topics();
    const topic = await all.create(1);
    const brokers = [...(await securedKafkaForTests()).sasl];
    const sasl = { mechanism: 'scram-sha-256', ...KAFKA_USER, password: 'wrong' };
    const watch = new Watch();
    const given = await options({ onEvent: watch.onEvent });
    for (const wrong of [{ source: { brokers, sasl } }, { sink: { brokers, sasl } }]) {
      const failure = await rejection((await piped({ name: 'unknown', from: topic, to: topic, ...wrong })).run(given));
      expect(failure).toMatchObject({ code: 'KAFKA_AUTHENTICATION', retryable: false });
      expect(failure.message).toContain(brokers[0]);
    }
    expect(watch.of('restart')).toEqual([]);
  });

  it.skipIf(process.env.KAFKA_BROKERS !== undefined)(
    'rights that are missing fail the job for good at its start with KAFKA_FORBIDDEN, and it names all of them',
    async () => {
      const all = await topics();
      const [from, to] = [await all.create(1), await all.create(1)];
      const own = await all.create(1, { configs: { 'cleanup.policy': 'compact' } });
      await all.write(from, ['a']);
      const { username, password } = KAFKA_LIMITED;
      const connection = { brokers: [...(await securedKafkaForTests()).sasl], sasl: { mechanism: 'plain', username, password } };
      const watch = new Watch();
      const given = await options({ onEvent: watch.onEvent });
      const pipe = (name: string, markerTopic = own) =>
        piped({ name, from, to, source: { ...connection, until: 'end' }, sink: { ...connection, markerTopic, transactionalIdPrefix: to } });
      const refused = async (markerTopic?: string): Promise<string> => {
        const failure = await rejection((await pipe('refused', markerTopic)).run(given));
        expect(failure).toMatchObject({ code: 'KAFKA_FORBIDDEN', retryable: false });
        return failure.message;
      };
      const allow = (...rights: Parameters<Topics['rights']> extends [string, string, ...infer Rest] ? Rest : never) =>
        all.rights(username, 'allowed', ...rights);
      // Sinks open first.
      expect(await refused()).toContain(`Write on the topic '${to}', Read on the marker topic '${own}', Write on the marker topic '${own}'.`);
      // Of a topic that a function names it is found out when a record has named it.
      const named = { brokers: connection.brokers, sasl: connection.sasl, markerTopic: await markerTopic(), transactionalIdPrefix: `${to}-named` };
      await all.rights(username, 'allowed', { transactionalId: `${to}-named-out-0` }, 'Write');
      await all.rights(username, 'allowed', { topic: named.markerTopic }, 'Read', 'Write');
      const disallowed = await rejection((await piped({ name: 'naming', from, to, sink: { ...named, topic: () => to } })).run(given));
      expect(disallowed).toMatchObject({ code: 'KAFKA_FORBIDDEN', message: expect.stringContaining(`missing is Write on the topic '${to}'.`) });
      await allow({ topic: to }, 'Write');
      await allow({ topic: own }, 'Read');
      expect(await refused()).toContain(`missing is Write on the marker topic '${own}'.`);
      await allow({ topic: own }, 'Write');
      expect(await refused()).toContain(`missing is Write on the transactional id '${to}-out-0'.`);
      await allow({ transactionalId: `${to}-out-0` }, 'Write');
      await allow({ topic: `${own}-new` }, 'Read', 'Write');
      expect(await refused(`${own}-new`)).toContain(`missing is Create on the marker topic '${own}-new'`);
      expect(await refused()).toContain(`The source 'in' has not all the rights that it needs: missing is Read on the topic '${from}'.`);
      expect(watch.of('restart')).toEqual([]);
      await allow({ topic: from }, 'Read');
      await (await pipe('allowed')).run(given);
      expect(await written(to)).toEqual(['allowed a']);
      // In the middle they are missed where they are needed.
      const seen = new Seen<string>();
      const running = ends(await (await piped({ name: 'disowned', from, to, source: connection, seen })).start(given));
      await seen.until((values) => values.length === 1);
      await all.rights(username, 'withdrawn', { topic: from }, 'Read');
      expect(await rejection(running.finished)).toMatchObject({ code: 'KAFKA_FORBIDDEN', retryable: false, uid: 'in' });
    },
  );

  it('an unreachable broker at the start is KAFKA_UNREACHABLE with its address, tried again as the job restarts, and read from when it is there', async () => {
    const all = await topics();
    const [from, to] = [await all.create(1), await all.create(1)];
    await all.write(from, numbered(3));
    const [port] = await freePorts(1);
    const connection = { brokers: [`127.0.0.1:${port}`], client: impatient(300) };
    const pipe = () => piped({ name: 'early', from, to, source: { ...connection, until: 'end' }, sink: connection });
    const failure = await rejection((await pipe()).run(await options({ restarts: { ...RESTARTS, max: 1 } })));
    expect(failure).toMatchObject({ retryable: true });
    expect(failure.message).toContain(`127.0.0.1:${port}`);
    const watch = new Watch();
    const starting = (await pipe()).start(await options({ onEvent: watch.onEvent }));
    await watch.until((events) => events.of('restart').length >= 2);
    for (const { error } of watch.of('restart')) expect(error).toMatchObject({ code: 'KAFKA_UNREACHABLE' });
    // The broker itself, under this address.
    const [host, real] = all.brokers[0]!.split(':');
    const relay = createServer((socket) => {
      const upstream = connect(Number(real), host!);
      socket.pipe(upstream).pipe(socket);
      socket.on('error', () => upstream.destroy());
      upstream.on('error', () => socket.destroy());
    });
    await new Promise<void>((resolve) => relay.listen(port, '127.0.0.1', resolve));
    onTestFinished(() => void relay.close());
    await ends(await starting).finished;
    expect(await written(to)).toEqual(numbered(3).map((value) => `early ${value}`));
  });
});

it.skipIf(NO_OWN_KAFKA || !LONG)('a broker that is killed in the middle and comes back costs neither records nor a restart, and is said once', async () => {
  const broker = await KafkaBroker.start();
  onTestFinished(() => broker.close());
  const { brokers } = broker;
  let all = await Topics.at(brokers);
  const [from, to] = [await all.create(2), await all.create(2)];
  const both = (at: number) => numbered(3_000, at).map((value, i) => ({ value, partition: i % 2 }));
  await all.write(from, both(0));
  const seen = new Seen<string>();
  const watch = new Watch();
  const warnings = new Warnings();
  const running = ends(
    await job('lost', (env) => {
      const input = env.source('in', kafka.source<string>({ brokers, topic: from, format: text(), groupId: 'lost', discoverEvery: 500 }));
      input.sink('seen', seen);
      input.sink('out', kafka.sink({ brokers, topic: to, format: text() }));
    }).start({ ...(await options()), parallelism: 2, onEvent: watch.onEvent, logger: warnings.logger }),
  );
  await seen.until((values) => values.length >= 3_000);
  await all.close();
  await broker.kill();
  // Checkpoints go on without it.
  const before = watch.of('checkpoint').length;
  await watch.until((events) => events.of('checkpoint').length >= before + 3);
  await broker.up();
  all = await Topics.at(brokers);
  await all.write(from, both(3_000));
  await seen.until((values) => values.length >= 6_000);
  await running.stop();
  expect((await readCommitted(all.kafka, [to])).get(to)!.sort()).toEqual(numbered(6_000).sort());
  expect(watch.of('restart')).toEqual([]);
  expect(warnings.said.filter((said) => said.includes('cannot be fetched at present'))).toHaveLength(1);
  await all.close();
});
