import { job, type RunOptions, sum, tumbling } from 'millrace';
import { expect, it } from 'vitest';
import { readMetadata } from '../../src/checkpoint/metadata.ts';
import { directory } from '../../src/storage/directory.ts';
import { checkpointsIn, ends, Feed, Store, temporaryFolder } from '../protocols/lab.ts';

function summing(feed: Feed<number>, store: Store<string>) {
  return job('summing', (env) => {
    const windows = env
      .source('in', feed, { timestamp: (v) => v })
      .map((v) => v)
      .chain('never')
      .keyBy(() => 'k')
      .window(tumbling(100))
      .aggregate(
        'sums',
        sum(() => 1),
      );
    windows.map((w) => `${w.start}: ${w.value}`).sink('out', store);
    windows
      .late()
      .map((v) => `late ${v}`)
      .sink('late', store);
  });
}

it('a split that goes to another instance is not late behind a task that was ahead, at the same parallelism too', async () => {
  const folder = await temporaryFolder();
  const feed = new Feed<number>({ splits: ['b', 'a'] });
  const store = new Store<string>();
  const options: RunOptions = { parallelism: 2, checkpoints: checkpointsIn(folder) };
  const first = ends(await summing(feed, store).start(options));
  // Found in this order, b goes to instance 0 and a to instance 1; dealt out anew, in order of their ids, the other way round.
  await feed.push([10], undefined, 'a').push([510], undefined, 'b').taken();
  await first.stop();
  expect(feed.reads.map(({ split, subtask }) => `${split} ${subtask}`).toSorted()).toEqual(['a 1', 'b 0']);
  const second = ends(await summing(feed, store).start(options));
  await feed.push([520], undefined, 'b').taken('b');
  await feed.push([20, 30], undefined, 'a').taken('a');
  feed.end();
  await second.finished;
  expect(
    feed.reads
      .slice(2)
      .map(({ split, subtask }) => `${split} ${subtask}`)
      .toSorted(),
  ).toEqual(['a 0', 'b 1']);
  expect(store.records).toEqual(['0: 3', '500: 2']);
});

it('a split that goes to an instance that had ended finds what stands behind it awake', async () => {
  const folder = await temporaryFolder();
  const feed = new Feed<number>({ splits: ['f0', 'f1', 'f2'] });
  const store = new Store<string>();
  const options: RunOptions = { parallelism: 2, checkpoints: checkpointsIn(folder) };
  const first = ends(await summing(feed, store).start(options));
  await feed.push([10], undefined, 'f0').push([20], undefined, 'f1').push([30], undefined, 'f2').taken();
  feed.end('f1');
  for (let ended = false; !ended; ) {
    const { tasks } = await readMetadata(directory('.'), (await first.checkpoint()).path);
    ended = tasks.some((t) => t.vertex !== 'in' && t.subtask === 1 && t.ended);
  }
  await first.stop();
  const second = ends(await summing(feed, store).start(options));
  await feed.push([140], undefined, 'f0').taken('f0');
  await feed.push([40], undefined, 'f2').taken('f2');
  feed.end();
  await second.finished;
  expect(store.records).toEqual(['0: 4', '100: 1']);
});
