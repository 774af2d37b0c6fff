// A run that is interrupted in every way but a kill: a function of the job throws behind a checkpoint, the job is stopped behind a later one, and another
// run goes on at another parallelism.

import { heldUntil, startHere } from './run-here.ts';
import type { Trial } from './trial.ts';

/** Gives what is wrong, as sentences. */
export async function interrupted(trial: Trial, before: number, after: number): Promise<string[]> {
  let checkpoints = 0;
  let thrownBehind = 0;
  let stopped = false;
  const onRecord = (): void => {
    if (thrownBehind > 0 || checkpoints === 0) return;
    thrownBehind = checkpoints;
    throw new Error('A function of the job throws.');
  };
  const pace = heldUntil(() => thrownBehind === 0 && checkpoints > 0);
  const running = await startHere(trial, { parallelism: before, onRecord, pace }, (event) => {
    if (event.type !== 'checkpoint') return;
    checkpoints += 1;
    if (thrownBehind === 0 || checkpoints < thrownBehind + 2 || stopped) return;
    stopped = true;
    setImmediate(() => void running.stop());
  });
  const first = await running.finished;
  if (first.status !== 'stopped' || first.restarts !== 1) return [`the first run ended as ${first.status} after ${first.restarts} restarts`];
  const again = await startHere(trial, { parallelism: after });
  const { status } = await again.finished;
  const wrong =
    again.restoredFrom?.id === first.checkpoint?.id ? [] : [`the second run went on from ${again.restoredFrom?.id}, not from ${first.checkpoint?.id}`];
  if (status !== 'finished') return [...wrong, `the second run ended as ${status}`];
  return [...wrong, ...(await trial.complaints())];
}
