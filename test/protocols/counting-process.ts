// A process that counts words in windows of a keyed process until it is killed or its input ends: for tests that need a real SIGKILL or SIGSTOP.
// Arguments: directory, how many records, milliseconds between batches, options of the start as JSON, and where to make a savepoint behind the first checkpoint.
// Prints `running`, each id of a checkpoint, `savepoint`, then `done`.

import { join } from 'node:path';
import { files } from '../../src/connectors/index.ts';
import type { Source } from '../../src/graph/source.ts';
import { job } from '../../src/index.ts';

const [directory, count, pause, options = '{}', savepoint] = process.argv.slice(2);
const BATCH = 20;

const numbers: Source<number, string, number> = {
  bounded: true,
  splits: async () => ['a', 'b'],
  splitId: (split) => split,
  async *read(split, from, { signal }) {
    for (let at = from ?? (split === 'a' ? 0 : 1); at < Number(count) && !signal.aborted; ) {
      const values: number[] = [];
      for (; at < Number(count) && values.length < BATCH; at += 2) values.push(at);
      yield { values, position: at };
      await new Promise((resolve) => setTimeout(resolve, Number(pause)));
    }
  },
};

const counting = job('counting', (env) => {
  env
    .source('in', numbers)
    .map((v) => ({ key: `k${v % 7}`, n: 1 }))
    .keyBy((v) => v.key)
    .reduce('counts', (left, right) => {
      left.n += right.n;
      return left;
    })
    .sink('out', files.sink({ directory: join(directory!, 'out') }));
});
try {
  const running = await counting.start({
    checkpoints: { directory: join(directory!, 'checkpoints'), every: 10 },
    onEvent: (event) => {
      if (event.type === 'checkpoint') console.log(event.checkpoint.id);
    },
    ...(JSON.parse(options) as object),
  });
  console.log('running');
  if (savepoint !== undefined) {
    await running.checkpoint();
    await running.savepoint(savepoint);
    console.log('savepoint');
  }
  await running.finished;
  console.log('done');
} catch (error) {
  console.log(JSON.stringify({ code: (error as { code?: string }).code, message: (error as Error).message }));
  process.exitCode = 1;
}
