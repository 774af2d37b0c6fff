// The requests that we send to brokers, each in one version that every broker from Kafka 3.1 on takes: how it is written, and how its answer is read.
//
// Not here: what answers mean (errors.ts), who is asked and what is tried again (cluster.ts, delivery.ts, transactions.ts), fetches (fetch-request.ts).
//
// Invariant: an answer is read as it is, with the broker's error numbers in it; nothing here throws but what an answer that ends too soon does.

import { WireReader, WireWriter } from './wire.ts';

/** A request that knows how to read its answer. */
export interface Call<T> {
  readonly apiKey: number;
  readonly name: string;
  readonly version: number;
  readonly flexible: boolean;
  readonly body: Buffer;
  readonly read: (answer: Buffer) => T;
}

function call<T>(
  api: { readonly key: number; readonly name: string; readonly version: number; readonly flexible?: boolean },
  write: (to: WireWriter) => void,
  read: (from: WireReader) => T,
  bytes?: number,
): Call<T> {
  const to = new WireWriter(bytes);
  write(to);
  return {
    apiKey: api.key,
    name: api.name,
    version: api.version,
    flexible: api.flexible === true,
    body: to.done(),
    read: (answer) => read(new WireReader(answer)),
  };
}

export interface TopicAnswer {
  readonly error: number;
  readonly topic: string;
  /** Hexadecimal; all zeros where there is none. */
  readonly id: string;
  readonly internal: boolean;
  /** A bit for each operation that we may do with it, by its number; only where it was asked for. */
  readonly operations: number;
  readonly partitions: readonly { readonly partition: number; readonly leader: number }[];
}

export interface MetadataAnswer {
  readonly brokers: readonly { readonly node: number; readonly host: string; readonly port: number }[];
  readonly controller: number;
  readonly topics: readonly TopicAnswer[];
}

/** Undefined: of all topics. Never creates one. `operations`: with what we may do. */
export function metadataCall(topics: readonly string[] | undefined, operations = false): Call<MetadataAnswer> {
  return call(
    { key: 3, name: 'Metadata', version: 10, flexible: true },
    (to) => {
      if (topics === undefined) to.unsignedVarint(0);
      else
        to.compactArray(topics, (topic) => {
          to.uuid(NO_UUID);
          to.compactString(topic);
          to.noTags();
        });
      to.boolean(false);
      to.boolean(false);
      to.boolean(operations);
      to.noTags();
    },
    (from) => {
      from.int32();
      const brokers = from.compactArray(() => {
        const broker = { node: from.int32(), host: from.compactString(), port: from.int32() };
        from.compactString();
        from.skipTags();
        return broker;
      });
      from.compactString();
      const controller = from.int32();
      const topics = from.compactArray(() => {
        const topic = {
          error: from.int16(),
          topic: from.compactString(),
          id: from.uuid(),
          internal: from.boolean(),
          partitions: from.compactArray(() => {
            from.int16();
            const partition = { partition: from.int32(), leader: from.int32() };
            from.int32();
            for (let replicas = 0; replicas < 3; replicas++) from.compactArray(() => from.int32());
            from.skipTags();
            return partition;
          }),
          operations: from.int32(),
        };
        from.skipTags();
        return topic;
      });
      return { brokers, controller, topics };
    },
  );
}

export const NO_UUID = '0'.repeat(32);

export interface OffsetAnswer {
  readonly partition: number;
  readonly error: number;
  /** −1: there is no record of that time or later. */
  readonly offset: bigint;
}

/** `time`: −2 the oldest, −1 behind the newest, else epoch ms. */
export function listOffsetsCall(topic: string, partitions: readonly number[], time: bigint, committed: boolean): Call<OffsetAnswer[]> {
  return call(
    { key: 2, name: 'ListOffsets', version: 5 },
    (to) => {
      to.int32(-1);
      to.int8(committed ? 1 : 0);
      to.array([topic], (name) => {
        to.string(name);
        to.array(partitions, (partition) => {
          to.int32(partition);
          to.int32(-1);
          to.int64(time);
        });
      });
    },
    (from) => {
      from.int32();
      return from
        .array(() => {
          from.string();
          return from.array(() => {
            const partition = from.int32();
            const error = from.int16();
            from.int64();
            const offset = from.int64();
            from.int32();
            return { partition, error, offset };
          });
        })
        .flat();
    },
  );
}

export interface ProducedAnswer {
  readonly topic: string;
  readonly partition: number;
  readonly error: number;
  readonly message: string | null;
}

export function produceCall(
  transactionalId: string | null,
  timeoutMs: number,
  batches: readonly { readonly topic: string; readonly partition: number; readonly bytes: Buffer }[],
): Call<ProducedAnswer[]> {
  const bytes = batches.reduce((sum, batch) => sum + batch.bytes.length + 2 * batch.topic.length + 32, 256);
  return call(
    { key: 0, name: 'Produce', version: 8 },
    (to) => {
      to.string(transactionalId);
      to.int16(-1);
      to.int32(timeoutMs);
      to.array(byTopic(batches), ([topic, partitions]) => {
        to.string(topic);
        to.array(partitions, (batch) => {
          to.int32(batch.partition);
          to.int32(batch.bytes.length);
          to.raw(batch.bytes);
        });
      });
    },
    (from) =>
      from
        .array(() => {
          const topic = from.string();
          return from.array(() => {
            const partition = from.int32();
            const error = from.int16();
            for (let numbers = 0; numbers < 3; numbers++) from.int64();
            const records = from.array(() => {
              from.int32();
              return from.nullableString();
            });
            const message = from.nullableString() ?? records.find((said) => said !== null) ?? null;
            return { topic, partition, error, message };
          });
        })
        .flat(),
    bytes,
  );
}

export interface ProducerAnswer {
  readonly error: number;
  readonly producerId: bigint;
  readonly epoch: number;
}

export function initProducerCall(transactionalId: string | null, timeoutMs: number): Call<ProducerAnswer> {
  return call(
    { key: 22, name: 'InitProducerId', version: 1 },
    (to) => {
      to.string(transactionalId);
      to.int32(timeoutMs);
    },
    (from) => {
      from.int32();
      return { error: from.int16(), producerId: from.int64(), epoch: from.int16() };
    },
  );
}

export interface Holder {
  readonly transactionalId: string;
  readonly producerId: bigint;
  readonly epoch: number;
}

export interface PartitionAnswer {
  readonly topic: string;
  readonly partition: number;
  readonly error: number;
}

export function addPartitionsCall(holder: Holder, partitions: readonly { readonly topic: string; readonly partition: number }[]): Call<PartitionAnswer[]> {
  return call(
    { key: 24, name: 'AddPartitionsToTxn', version: 2 },
    (to) => {
      writeHolder(to, holder);
      to.array(byTopic(partitions), ([topic, named]) => {
        to.string(topic);
        to.array(named, ({ partition }) => to.int32(partition));
      });
    },
    (from) => {
      from.int32();
      return readPartitionErrors(from);
    },
  );
}

export function endTransactionCall(holder: Holder, commit: boolean): Call<number> {
  return call(
    { key: 26, name: 'EndTxn', version: 2 },
    (to) => {
      writeHolder(to, holder);
      to.boolean(commit);
    },
    (from) => {
      from.int32();
      return from.int16();
    },
  );
}

function writeHolder(to: WireWriter, { transactionalId, producerId, epoch }: Holder): void {
  to.string(transactionalId);
  to.int64(producerId);
  to.int16(epoch);
}

export interface CoordinatorAnswer {
  readonly error: number;
  readonly message: string | null;
  readonly node: number;
  readonly host: string;
  readonly port: number;
}

export type CoordinatorKind = 'group' | 'transaction';

export function findCoordinatorCall(kind: CoordinatorKind, key: string): Call<CoordinatorAnswer> {
  return call(
    { key: 10, name: 'FindCoordinator', version: 2 },
    (to) => {
      to.string(key);
      to.int8(kind === 'group' ? 0 : 1);
    },
    (from) => {
      from.int32();
      return { error: from.int16(), message: from.nullableString(), node: from.int32(), host: from.string(), port: from.int32() };
    },
  );
}

export interface GroupOffsetsAnswer {
  readonly error: number;
  readonly offsets: readonly { readonly topic: string; readonly partition: number; readonly offset: bigint; readonly error: number }[];
}

/** Of every topic that the group has committed for. */
export function groupOffsetsCall(group: string): Call<GroupOffsetsAnswer> {
  return call(
    { key: 9, name: 'OffsetFetch', version: 5 },
    (to) => {
      to.string(group);
      to.int32(-1);
    },
    (from) => {
      from.int32();
      const offsets = from
        .array(() => {
          const topic = from.string();
          return from.array(() => {
            const partition = from.int32();
            const offset = from.int64();
            from.int32();
            from.nullableString();
            return { topic, partition, offset, error: from.int16() };
          });
        })
        .flat();
      return { error: from.int16(), offsets };
    },
  );
}

/** Of a group without members. */
export function commitOffsetsCall(group: string, topic: string, offsets: ReadonlyMap<number, bigint>): Call<PartitionAnswer[]> {
  return call(
    { key: 8, name: 'OffsetCommit', version: 7 },
    (to) => {
      to.string(group);
      to.int32(-1);
      to.string('');
      to.string(null);
      to.array([topic], (name) => {
        to.string(name);
        to.array([...offsets], ([partition, offset]) => {
          to.int32(partition);
          to.int64(offset);
          to.int32(-1);
          to.string(null);
        });
      });
    },
    (from) => {
      from.int32();
      return readPartitionErrors(from);
    },
  );
}

export interface NamedAnswer {
  readonly error: number;
  readonly message: string | null;
}

/** `replicas`: −1 as the broker has it. */
export function createTopicCall(
  topic: string,
  options: { readonly partitions: number; readonly replicas: number; readonly configs: Readonly<Record<string, string>>; readonly timeoutMs: number },
): Call<NamedAnswer> {
  return call(
    { key: 19, name: 'CreateTopics', version: 4 },
    (to) => {
      to.array([topic], (name) => {
        to.string(name);
        to.int32(options.partitions);
        to.int16(options.replicas);
        to.int32(0);
        to.array(Object.entries(options.configs), ([config, value]) => {
          to.string(config);
          to.string(value);
        });
      });
      to.int32(options.timeoutMs);
      to.boolean(false);
    },
    (from) => {
      from.int32();
      const [answer] = from.array(() => {
        from.string();
        return { error: from.int16(), message: from.nullableString() };
      });
      return answer ?? { error: -1, message: null };
    },
  );
}

export interface ConfigsAnswer extends NamedAnswer {
  readonly configs: readonly { readonly name: string; readonly value: string | null }[];
}

export function describeConfigsCall(kind: 'topic' | 'broker', name: string): Call<ConfigsAnswer> {
  return call(
    { key: 32, name: 'DescribeConfigs', version: 2 },
    (to) => {
      to.array([name], (resource) => {
        to.int8(kind === 'topic' ? 2 : 4);
        to.string(resource);
        to.int32(-1);
      });
      to.boolean(false);
    },
    (from) => {
      from.int32();
      const [answer] = from.array(() => {
        const error = from.int16();
        const message = from.nullableString();
        from.int8();
        from.string();
        const configs = from.array(() => {
          const config = { name: from.string(), value: from.nullableString() };
          from.boolean();
          from.int8();
          from.boolean();
          from.array(() => {
            from.string();
            from.nullableString();
            from.int8();
          });
          return config;
        });
        return { error, message, configs };
      });
      return answer ?? { error: -1, message: null, configs: [] };
    },
  );
}

function readPartitionErrors(from: WireReader): PartitionAnswer[] {
  return from
    .array(() => {
      const topic = from.string();
      return from.array(() => ({ topic, partition: from.int32(), error: from.int16() }));
    })
    .flat();
}

export function byTopic<T extends { readonly topic: string }>(values: readonly T[]): [string, T[]][] {
  const topics = new Map<string, T[]>();
  for (const value of values) {
    const known = topics.get(value.topic);
    if (known === undefined) topics.set(value.topic, [value]);
    else known.push(value);
  }
  return [...topics];
}
