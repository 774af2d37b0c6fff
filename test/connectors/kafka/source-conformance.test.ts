import { kafka } from 'millrace/kafka';
import { type SourceTrial, sourceConformance } from 'millrace/testing';
import { describe, it } from 'vitest';
import { kafkaForTests, NO_KAFKA } from '../../services/kafka.ts';
import { topicsOf } from './topics.ts';

const topics = topicsOf(kafkaForTests);
const values = Array.from({ length: 24 }, (_, n) => ({ n, text: `ü${n}` }));
type Value = (typeof values)[0];

/** With all that makes offsets something else than a count: aborted records, tombstones, what does not decode, a partition without any. */
async function trial(until: 'end' | undefined): Promise<SourceTrial<Value>> {
  const all = await topics();
  const topic = await all.create(3);
  const written = (from: readonly Value[], partition: number) => from.map((value) => ({ value: JSON.stringify(value), partition }));
  await all.write(topic, [...written(values.slice(0, 8), 0), { value: 'no record', partition: 0 }, ...written(values.slice(8, 12), 0)]);
  await (await all.transaction(topic, written([{ n: -1, text: 'never' }], 1))).abort();
  await all.write(topic, [...written(values.slice(12), 1), { value: null, key: 'k', partition: 1 }]);
  const later = { n: 100, text: 'later' };
  const add = async (): Promise<Value[]> => {
    await all.write(topic, written([later], 2));
    return [later];
  };
  return {
    source: () => kafka.source<Value>({ brokers: all.brokers, topic, ...(until === undefined ? {} : { until }) }),
    expected: values,
    letters: 1,
    ...(until === undefined ? { add } : {}),
  };
}

describe.skipIf(NO_KAFKA)('a topic as a source, up to its end', () => {
  for (const { name, run } of sourceConformance(() => trial('end'))) it(name, run);
});

describe.skipIf(NO_KAFKA)('a topic as a source', () => {
  for (const { name, run } of sourceConformance(() => trial(undefined))) it(name, run);
});
