import { describe, expect, it } from 'vitest';
import { hashKey, memory } from '../../state-backends/index.ts';

const ROWS = 10_000;

describe('a slice of encoding', () => {
  it('ends at its deadline also where all that was frozen has been written already, by touching it', async () => {
    const region = await memory().open({ name: 'slices', tracked: true });
    const task = region.task({ maxParallelism: 128, range: { from: 0, to: 127 }, undo: false });
    const single = task.single('op', 'value');
    const ordered = task.ordered('op', 'slices');
    const timers = task.timers('op', 'timers');
    const keys = Array.from({ length: ROWS }, (_, i) => `key-${i}`);
    for (const [i, key] of keys.entries()) {
      single.insert(key, hashKey(key), i);
      ordered.insertRow(ordered.insert(key, hashKey(key)), 0, i);
      timers.set(i, key, hashKey(key));
    }
    task.freeze(1);
    for (const key of keys) {
      single.touch(single.find(key, hashKey(key))!);
      ordered.touch(ordered.row(ordered.find(key, hashKey(key))!, 0)!);
    }
    while (timers.pop(Number.POSITIVE_INFINITY) !== undefined);
    let slices = 0;
    while (!task.encode(Number.NEGATIVE_INFINITY)) slices++;
    // Three tables of 10,000 rows; each slice looks at a bounded number of them, however little there is to write.
    expect(slices).toBeGreaterThan(300);
    expect(task.takeDeltas()[0]!.rows).toBe(3 * ROWS);
    await region.close();
  });
});
