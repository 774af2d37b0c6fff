import { job, type Logger, text } from 'millrace';
import { kafka } from 'millrace/kafka';
import { expect, it, onTestFinished } from 'vitest';
import { checkpointsIn, ends, Seen, Store, temporaryFolder, Watch } from '../../protocols/lab.ts';
import { KafkaBroker, NO_KAFKA } from '../../services/kafka.ts';
import { Topics } from './topics.ts';

const numbered = (count: number, from = 0): string[] => Array.from({ length: count }, (_, i) => `v${from + i}`);
const quiet = (): void => {};

it.skipIf(NO_KAFKA)('a broker that is killed in the middle and comes back costs neither records nor a restart, and is said once', async () => {
  const broker = await KafkaBroker.start();
  onTestFinished(() => broker.close());
  const { brokers } = broker;
  let topics = await Topics.at(brokers);
  const topic = await topics.create(2);
  const both = (from: number) => numbered(3_000, from).map((value, i) => ({ value, partition: i % 2 }));
  await topics.write(topic, both(0));
  const store = new Store<string>();
  const seen = new Seen<string>();
  const watch = new Watch();
  const warned: string[] = [];
  const logger: Logger = {
    debug: quiet,
    info: quiet,
    error: quiet,
    warn: (_: unknown, said?: string) => void warned.push(said ?? String(_)),
    child: () => logger,
  };
  const folder = await temporaryFolder();
  const options = { brokers, topic, format: text() };
  const running = ends(
    await job('lost', (env) => {
      const input = env.source('in', kafka.source<string>({ ...options, groupId: 'lost', discoverEvery: 500 }));
      input.sink('seen', seen);
      input.sink('out', store);
    }).start({ parallelism: 2, checkpoints: { ...checkpointsIn(folder), every: 100 }, onEvent: watch.onEvent, logger }),
  );
  await seen.until((values) => values.length >= 3_000);
  await topics.close();
  await broker.kill();
  // Checkpoints go on without it.
  const before = watch.of('checkpoint').length;
  await watch.until((events) => events.of('checkpoint').length >= before + 3);
  await broker.up();
  topics = await Topics.at(brokers);
  await topics.write(topic, both(3_000));
  await store.until((records) => records.length >= 6_000);
  await running.stop();
  expect(store.records.toSorted()).toEqual(numbered(6_000).sort());
  expect(watch.of('restart')).toEqual([]);
  expect(warned.filter((said) => said.includes('cannot be fetched at present'))).toHaveLength(1);
  await topics.close();
});
