import { job, type ReadContext, type Source } from 'millrace';
import { expect, it } from 'vitest';
import { Conditions, checkpointsIn, ends, RESTARTS, Store, temporaryFolder, Watch } from './lab.ts';

/** Two batches; in front of the second one an undecodable record, and a wait between the two. */
class Dented implements Source<number, string, number> {
  readonly bounded = true;
  readonly conditions = new Conditions();
  dents = 0;
  held = true;

  async splits(): Promise<string[]> {
    return ['all'];
  }
  splitId(split: string): string {
    return split;
  }
  async *read(_split: string, from: number | undefined, { deadLetter, signal }: ReadContext) {
    if ((from ?? 0) < 1) yield { values: [1], position: 1 };
    if ((from ?? 0) >= 2) return;
    deadLetter('?', new Error('undecodable'));
    this.dents += 1;
    this.conditions.changed();
    signal.addEventListener('abort', () => this.conditions.changed());
    await this.conditions.until(() => !this.held || signal.aborted);
    yield { values: [2], position: 2 };
  }
  release(): void {
    this.held = false;
    this.conditions.changed();
  }
}

it('a dead letter of a source goes with the batch that its position stands behind: a restore between the two does not make two of it', async () => {
  const folder = await temporaryFolder();
  const source = new Dented();
  const letters = new Store<string>();
  const values = new Store<number>();
  const watch = new Watch();
  const dented = job('dented', (env) => {
    const read = env.source('in', source);
    read
      .deadLetters()
      .map((letter) => String(letter.record))
      .sink('letters', letters);
    read.sink('values', values);
  });
  values.before = (_, checkpoint) => {
    if (watch.of('restart').length === 0) throw new Error(`crash in the commit of ${checkpoint}`);
  };
  const running = ends(await dented.start({ checkpoints: checkpointsIn(folder), restarts: RESTARTS, onEvent: watch.onEvent }));
  await source.conditions.until(() => source.dents === 1);
  await running.checkpoint();
  await watch.restarted();
  await source.conditions.until(() => source.dents === 2);
  source.release();
  expect((await running.finished).status).toBe('finished');
  expect(values.records).toEqual([1, 2]);
  expect(letters.records).toEqual(['?']);
});
