import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { job, level, type Sink } from 'millrace';
import { describe, expect, it } from 'vitest';
import { MillraceError } from '../../src/errors.ts';
import { StateError } from '../../state-backends/state-error.ts';
import { checkpointsIn, ends, Feed, RESTARTS, rejection, Store, temporaryFolder, Watch } from '../protocols/lab.ts';

const system = (code: string): Error => Object.assign(new Error(`${code}: no`), { code });

describe('an error whose cause says that the same again gives the same', () => {
  it('is not retryable for what the system says of paths and rights, and is for what may pass', () => {
    const retryable = (code: string) => [
      new MillraceError('SINK_FAILED', 'No.', { cause: system(code) }).retryable,
      new MillraceError('CHECKPOINT_FAILED', 'No.', { cause: new Error('no', { cause: system(code) }) }).retryable,
      new StateError('STATE_IO', 'No.', { cause: system(code) }).retryable,
    ];
    for (const code of ['ENOTDIR', 'EISDIR', 'EACCES', 'ENAMETOOLONG', 'EROFS']) expect([code, ...retryable(code)]).toEqual([code, false, false, false]);
    for (const code of ['EIO', 'ENOSPC', 'EMFILE', 'EAGAIN', 'ENOENT', 'ECONNREFUSED']) expect([code, ...retryable(code)]).toEqual([code, true, true, true]);
  });

  it('is what its nearest cause says that knows, and what its thrower says before that', () => {
    const hopeless = new StateError('STATE_NOT_SERIALIZABLE', 'No.');
    const passing = new MillraceError('SOURCE_FAILED', 'No.', { cause: system('EACCES'), retryable: true });
    expect(new MillraceError('CHECKPOINT_FAILED', 'No.', { cause: hopeless }).retryable).toBe(false);
    expect(new MillraceError('CHECKPOINT_FAILED', 'No.', { cause: passing }).retryable).toBe(true);
    expect(new MillraceError('SINK_FAILED', 'No.', { cause: system('EROFS'), retryable: true }).retryable).toBe(true);
    expect(new MillraceError('FILE_CHANGED', 'No.', { cause: passing }).retryable).toBe(false);
  });

  it('is retryable where user code threw it: that has a policy', () => {
    expect(new MillraceError('USER_FUNCTION_FAILED', 'No.', { cause: system('EACCES') }).retryable).toBe(true);
  });
});

describe('a job is not restarted in vain', () => {
  const copying = (feed: Feed<number>, sink: Sink<number> | Store<number>) =>
    job('copying', (env) => {
      env.source('in', feed).sink('out', sink as Sink<number>);
    });

  it('where the directory of its state cannot be', async () => {
    const folder = await temporaryFolder();
    const watch = new Watch();
    await writeFile(join(folder, 'a-file'), '');
    const options = { checkpoints: checkpointsIn(folder), restarts: RESTARTS, state: level({ directory: join(folder, 'a-file', 'state') }) };
    const error = await rejection(copying(new Feed({ bounded: false }), new Store()).start({ ...options, onEvent: watch.onEvent }));
    expect(error).toMatchObject({ code: 'STATE_IO', retryable: false });
    expect(watch.of('restart')).toEqual([]);
  });

  it('where its sink cannot be opened', async () => {
    const folder = await temporaryFolder();
    const watch = new Watch();
    const closed: Sink<number> = { open: () => Promise.reject(system('EACCES')) };
    const error = await rejection(
      copying(new Feed({ bounded: false }), closed).start({ checkpoints: checkpointsIn(folder), restarts: RESTARTS, onEvent: watch.onEvent }),
    );
    expect(error).toMatchObject({ code: 'SINK_FAILED', uid: 'out', retryable: false });
    expect(watch.of('restart')).toEqual([]);
  });

  it('where somebody has removed the folder of its checkpoints', async () => {
    const folder = await temporaryFolder();
    const watch = new Watch();
    const feed = new Feed<number>({ bounded: false });
    const running = ends(await copying(feed, new Store()).start({ checkpoints: checkpointsIn(folder), restarts: RESTARTS, onEvent: watch.onEvent }));
    await feed.push([1]).taken();
    await rm(join(folder, 'checkpoints', 'copying', 'files'), { recursive: true });
    expect(await rejection(running.checkpoint())).toMatchObject({ code: 'CHECKPOINT_FAILED', retryable: false });
    expect((await rejection(running.finished)).message).toContain('is gone');
    expect(watch.of('restart')).toEqual([]);
  });
});
