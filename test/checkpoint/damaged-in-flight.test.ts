import { cp, readdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { job } from 'millrace';
import { expect, it } from 'vitest';
import { checkpointsIn, ends, Feed, rejection, Store, temporaryFolder } from '../protocols/lab.ts';
import { Random, rounds, SEED } from '../random.ts';

const RECORDS = 40;

/** Records wait in channels until `answer` is called: asyncMap asks for one at a time. */
function heldUp(feed: Feed<number>, store: Store<number>) {
  let answer!: () => void;
  const answered = new Promise<void>((resolve) => {
    answer = resolve;
  });
  const program = job('held-up', (env) => {
    env
      .source('in', feed)
      .keyBy((n) => n % 2)
      .asyncMap('ask', async (n) => answered.then(() => n), { capacity: 1 })
      .sink('out', store);
  });
  return { program, answer };
}

it('a damaged file of what was in flight is found and named, whatever byte it is or wherever it ends; undamaged, every record comes once', async () => {
  const folder = await temporaryFolder();
  const feed = new Feed<number>({ bounded: false });
  const { program, answer } = heldUp(feed, new Store<number>());
  const running = ends(await program.start({ checkpoints: { ...checkpointsIn(folder), unaligned: true }, parallelism: 2 }));
  await feed.push(Array.from({ length: RECORDS }, (_, n) => n)).taken();
  const { path } = await running.checkpoint();
  const files = join(dirname(dirname(path)), 'files');
  const inFlight = (await readdir(files)).filter((name) => name.startsWith('inflight-'));
  expect(inFlight.length).toBeGreaterThan(0);
  const whole = await temporaryFolder();
  await cp(folder, whole, { recursive: true });
  answer();
  await running.cancel();

  const goOn = async (from: string, parallelism: number): Promise<number[]> => {
    const store = new Store<number>();
    const again = heldUp(feed, store);
    again.answer();
    const restored = ends(await again.program.start({ checkpoints: checkpointsIn(from), parallelism, restore: { from: path.replace(folder, from) } }));
    await restored.stop({ drain: true });
    return store.records.sort((a, b) => a - b);
  };
  for (let seed = SEED; seed < SEED + rounds(1); seed++) {
    const random = new Random(seed);
    for (const name of inFlight) {
      const bytes = await readFile(join(files, name));
      for (const damage of ['flip', 'flip', 'flip', 'truncate', 'extend'] as const) {
        const damaged = await temporaryFolder();
        await cp(whole, damaged, { recursive: true });
        const byte = random.below(bytes.length);
        const content = Buffer.from(bytes);
        if (damage === 'flip') content[byte]! ^= 1 << random.below(8);
        const cut = damage === 'truncate' ? content.subarray(0, byte) : damage === 'extend' ? Buffer.concat([content, Buffer.from([0])]) : content;
        await writeFile(join(files, name).replace(folder, damaged), cut);
        const error = await rejection(goOn(damaged, random.between(1, 3)));
        expect({ code: error.code, names: error.message.includes(name) }, `seed ${seed}: ${damage} at ${byte} of ${name}`).toEqual({
          code: 'SNAPSHOT_CORRUPT',
          names: true,
        });
      }
    }
  }
  expect(await goOn(whole, 3)).toEqual(Array.from({ length: RECORDS }, (_, n) => n));
});
