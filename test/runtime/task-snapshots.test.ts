import { describe, expect, it } from 'vitest';
import { SILENT } from '../../src/graph/context.ts';
import { systemIo } from '../../src/runtime/io.ts';
import type { SnapshotStorage, TaskSnapshot } from '../../src/runtime/snapshot.ts';
import { TaskSnapshots } from '../../src/runtime/task-snapshots.ts';
import { DELTAS_MAX, type FileRef, hashKey, memory } from '../../state-backends/index.ts';

const RANGE = { from: 0, to: 127 };

/** A storage that keeps nothing, and whose base files open when the test says so. */
class Bases implements SnapshotStorage {
  opened: (() => void) | undefined;
  readonly files: string[] = [];
  readonly abandoned: string[] = [];

  async write(name: string): Promise<FileRef> {
    return { name, bytes: 1, crc: 0 };
  }
  open(name: string) {
    const file = {
      append: async () => {},
      finish: async () => ({ name, bytes: 1, crc: 0 }),
      abandon: async () => {
        this.abandoned.push(name);
      },
    };
    return new Promise<typeof file>((resolve) => {
      this.opened = () => {
        this.files.push(name);
        resolve(file);
      };
    });
  }
  async *read(): AsyncIterable<Uint8Array> {}
  async remove(): Promise<void> {}
}

describe('a chain that is as long as a chain may be', () => {
  for (const [what, works] of [
    ['is acknowledged once a base has been made', true],
    ['is declined where its base fails', false],
  ] as const) {
    it(`makes a checkpoint wait for a base: it ${what}`, async () => {
      const region = await memory().open({ name: 'bases', tracked: true });
      const state = region.task({ maxParallelism: 128, range: RANGE, undo: false });
      const table = state.single('op', 'value');
      const mail: (() => void)[] = [];
      const said: string[] = [];
      const file = (name: string) => ({
        append: async () => {},
        finish: async () => {
          said.push('base');
          return { name, bytes: 1, crc: 0 };
        },
        abandon: async () => {},
      });
      const storage: SnapshotStorage = {
        write: async (name) => ({ name, bytes: 1, crc: 0 }),
        open: async (name) => {
          if (!works) throw new Error('the disk is full');
          return file(name);
        },
        read: async function* () {},
        remove: async () => {},
      };
      const snapshots = new TaskSnapshots({
        task: 'op-0',
        uid: 'op',
        kind: 'process',
        attempt: 1,
        range: RANGE,
        handles: [
          { range: RANGE, bases: [], deltas: Array.from({ length: DELTAS_MAX }, (_, id) => ({ id, file: { name: `delta-${id}`, bytes: 1, crc: 0 } })) },
        ],
        state,
        storage,
        io: systemIo(),
        log: SILENT,
        maxParallelism: 128,
        post: (fn) => void mail.push(fn),
        wake: () => {},
        acknowledge: (id, { keyed }) => void said.push(`${id} with ${keyed!.handle.deltas.length} deltas`),
        decline: (id, error) => void said.push(`${id} declined: ${(error as Error).message}`),
      });
      const snapshot = { vertex: 'op', subtask: 0, parallelism: 1, watermark: 0, processingTime: 0, ended: false };
      for (const id of [1000, 1001]) {
        table.insert(`k${id}`, hashKey(`k${id}`), 1);
        snapshots.take({ id, snapshot, operators: {}, sinks: [], recording: undefined }, performance.now());
        while (said.filter((each) => each.startsWith(String(id))).length === 0) {
          snapshots.work(Number.POSITIVE_INFINITY);
          await new Promise((resolve) => setImmediate(resolve));
          for (const fn of mail.splice(0)) fn();
        }
      }
      if (works) expect(said).toEqual(['base', `1000 with ${DELTAS_MAX + 1} deltas`, '1001 with 1 deltas']);
      else expect(said).toEqual(['1000 declined: the disk is full', '1001 declined: the disk is full']);
      snapshots.close();
      await region.close();
    });
  }
});

describe('a base that is begun', () => {
  for (const when of ['opens after the task has ended', 'has opened when the task ends, which it has not heard of yet']) {
    it(`${when}: its file is let go`, async () => {
      const storage = new Bases();
      const region = await memory().open({ name: 'bases', tracked: true });
      const state = region.task({ maxParallelism: 128, range: RANGE, undo: false });
      const table = state.single('op', 'value');
      let mail: (() => void)[] = [];
      const acknowledged: TaskSnapshot[] = [];
      const snapshots = new TaskSnapshots({
        task: 'op-0',
        uid: 'op',
        kind: 'process',
        attempt: 1,
        range: RANGE,
        maxParallelism: 128,
        // So many that the next checkpoint asks for a base.
        handles: [{ range: RANGE, bases: [], deltas: Array.from({ length: 20 }, (_, id) => ({ id, file: { name: `delta-${id}`, bytes: 1, crc: 0 } })) }],
        state,
        storage,
        io: systemIo(),
        log: SILENT,
        post: (fn) => void mail.push(fn),
        wake: () => {},
        acknowledge: (_, snapshot) => void acknowledged.push(snapshot),
        decline: (_, error) => {
          throw error;
        },
      });
      const deliver = async (): Promise<void> => {
        await new Promise((resolve) => setImmediate(resolve));
        for (const fn of mail.splice(0)) fn();
      };
      table.insert('k', hashKey('k'), 1);
      const snapshot = { vertex: 'op', subtask: 0, parallelism: 1, watermark: 0, processingTime: 0, ended: false };
      snapshots.take({ id: 100, snapshot, operators: {}, sinks: [], recording: undefined }, performance.now());
      while (snapshots.busy) snapshots.work(Number.POSITIVE_INFINITY);
      await snapshots.settled();
      await deliver();
      expect(acknowledged).toHaveLength(1);
      await new Promise((resolve) => setImmediate(resolve));
      if (when.startsWith('has opened')) storage.opened!();
      await new Promise((resolve) => setImmediate(resolve));
      // From now on mail is dropped.
      mail = [];
      snapshots.close();
      if (when.startsWith('opens')) storage.opened!();
      await new Promise((resolve) => setImmediate(resolve));
      expect(storage.files).toHaveLength(1);
      expect(storage.abandoned).toEqual(storage.files);
      await region.close();
    });
  }
});
