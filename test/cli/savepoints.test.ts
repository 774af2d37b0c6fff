// Savepoints by the command: taken, verified against a module, repartitioned, restored; and a job that is rescaled.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { nameAnd } from '../../src/cli/savepoint-commands.ts';
import { verdictLines } from '../../src/cli/state-verify.ts';
import { build, Place, TICKING } from './millrace-process.ts';

let place: Place;
beforeAll(build, 180_000);
beforeEach(() => {
  place = new Place();
});
afterEach(() => place.remove());

describe('millrace savepoint, stop --savepoint, rescale and state verify', () => {
  it('go together', async () => {
    const module = place.write('ticking.mjs', TICKING);
    const run = place.start(['run', module, '--', 'ticking']);
    await run.said(/door at/);
    await run.said(/^20 20$/m, 'stdout');

    const saved = await place.run('savepoint', 'ticking', 'saved');
    expect(saved).toMatchObject({ code: 0, stderr: '' });
    expect(saved.stdout).toMatch(/^ticking: savepoint \d+ in .*saved, \d+ bytes\n$/);
    expect(await place.run('savepoint', 'saved')).toMatchObject({ code: 1, stderr: expect.stringMatching(/^SAVEPOINT_EXISTS: .*saved is not empty/) });

    expect(await place.run('rescale', '3')).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^ticking: runs at parallelism 3, from checkpoint \d+\n$/),
    });
    expect((await place.run('tree')).stdout).toMatch(/sum-2 +running/);
    expect(await place.run('rescale', 'ticking', '1000')).toMatchObject({ code: 1, stderr: expect.stringMatching(/^MAX_PARALLELISM_CHANGED/) });
    expect(await place.run('rescale', 'many')).toMatchObject({ code: 2, stderr: expect.stringMatching(/^OPTION_INVALID/) });
    expect(JSON.parse((await place.run('checkpoint', '--json')).stdout)).toMatchObject({ id: expect.any(Number) });

    const stopped = await place.run('stop', '--savepoint', 'last');
    expect(stopped).toMatchObject({ code: 0, stdout: expect.stringMatching(/^ticking: stopped, checkpoint \d+, savepoint in .*last\n$/) });
    expect((await run.ended).code).toBe(0);

    const verified = await place.run('state', 'verify', 'last', module, '--', 'ticking');
    expect(verified).toMatchObject({ code: 0, stdout: expect.stringMatching(/^kept {6}sum\/value: \d+ rows are taken over\.$[\s\S]*can take over snapshot/m) });
    const other = place.write('other.mjs', TICKING.replaceAll("'sum'", "'total'"));
    const refused = await place.run('state', 'verify', 'last', other, '--json', '--', 'ticking');
    expect(refused.code).toBe(1);
    expect(JSON.parse(refused.stdout)).toMatchObject({
      takesOver: false,
      states: expect.arrayContaining([expect.objectContaining({ uid: 'sum', outcome: 'refused' })]),
    });

    expect(await place.run('state', 'repartition', 'last', 'wider', '--max-parallelism', '256')).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/256 key groups instead of 128/),
    });
    const again = place.start(['run', module, '--checkpoints', 'elsewhere', '--restore', 'wider', '--claim', '--', 'ticking']);
    await again.said(/resumes from checkpoint/);
    await again.said(/door at/);
    expect((await place.run('stop')).code).toBe(0);
    await again.ended;
    expect(existsSync(join(place.folder, 'wider'))).toBe(false);
    expect(existsSync(join(place.folder, 'last', 'metadata'))).toBe(true);
  });

  it('say what is wrong with the command line', async () => {
    expect(await place.run('run', 'none.mjs', '--claim')).toMatchObject({ code: 2, stderr: expect.stringContaining('--claim is about a snapshot') });
    expect(await place.run('savepoint', 'a', 'b', 'c')).toMatchObject({ code: 2, stderr: expect.stringContaining('millrace savepoint [job] DIR') });
    expect(await place.run('state', 'verify', 'nothing-there', 'none.mjs')).toMatchObject({ code: 1, stderr: expect.stringMatching(/^MODULE_NOT_FOUND/) });
  });
});

describe('the words of a verdict', () => {
  it('are one line a state, and one for all', () => {
    const states = [
      { uid: 'a', state: 'x', outcome: 'kept' as const, rows: 2, sentence: '2 rows are taken over.' },
      { uid: 'b', state: undefined, outcome: 'refused' as const, rows: 0, sentence: 'It is gone.', todo: 'Bring it back.' },
    ];
    expect(verdictLines('j', { id: 7, job: 'j', maxParallelism: 128, takesOver: false, states })).toEqual([
      'kept      a/x: 2 rows are taken over.',
      'refused   b: It is gone. Bring it back.',
      "The job 'j' cannot take over snapshot 7: 1 refused.",
    ]);
  });

  it('the name of a job is optional, in front of what is asked for', () => {
    expect(nameAnd(['dir'], 'a folder', 'usage')).toEqual({ job: undefined, last: 'dir' });
    expect(nameAnd(['job', 'dir'], 'a folder', 'usage')).toEqual({ job: 'job', last: 'dir' });
  });
});
