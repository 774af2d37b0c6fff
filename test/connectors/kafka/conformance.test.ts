import { avro, type TransactionalSink } from 'millrace';
import { type SinkTrial, sinkConformance } from 'millrace/testing';
import { describe, expect, it } from 'vitest';
import { registryServer } from '../registry-server.ts';
import { MemoryKafka } from './memory-cluster.ts';
import { commit, contextOf, exactlyOnce } from './sinks.ts';

const values = Array.from({ length: 24 }, (_, n) => ({ n, text: `ü${n}` }));
type Value = (typeof values)[0];

describe('a Kafka sink, in memory', () => {
  const open = (): SinkTrial<Value> => {
    const kafka = new MemoryKafka().createTopic('out', 2);
    return {
      sink: () => exactlyOnce<Value>(kafka.client(), { commitBytes: 1 << 20 }) as TransactionalSink<Value>,
      values,
      written: () => kafka.values('out').map((value) => JSON.parse(value ?? 'null') as Value),
    };
  };
  for (const { name, run } of sinkConformance('transactional', open)) it(name, run);
});

describe('a Kafka sink of Avro', () => {
  it('registers its schema under the subject of the topic when it opens', async () => {
    const registry = await registryServer();
    const kafka = new MemoryKafka().createTopic('out', 1);
    const schema = { type: 'record', name: 'Value', fields: [{ name: 'n', type: 'int' }] };
    const format = avro<{ n: number }>({ registry: registry.url, schema, register: true });
    const writer = await exactlyOnce<{ n: number }>(kafka.client(), { format }).open(contextOf());
    expect([...registry.subjects.keys()]).toEqual(['out-value']);
    await commit(writer, 1, [{ n: 3 }]);
    expect([...kafka.committed('out')[0]!.value!]).toEqual([0, 0, 0, 0, 1, 6]);
    await writer.close();
    const refused = exactlyOnce<{ n: number }>(kafka.client(), { format: avro({ registry: registry.url, subject: 'nothing' }) }).open(contextOf());
    await expect(refused).rejects.toMatchObject({ code: 'REGISTRY_REFUSED' });
  });
});
