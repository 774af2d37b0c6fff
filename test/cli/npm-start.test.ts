// `npm start` as a process manager sees it: it starts npm, and tells npm to end. The shell between npm and the job must have become the job (`exec`), or it
// dies of the signal alone.

import { readFileSync, statSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { build, Place, ROOT } from './millrace-process.ts';

describe.skipIf(process.platform === 'win32')('npm start', () => {
  let place: Place;
  let pid: number | undefined;
  beforeAll(build, 180_000);
  beforeEach(() => {
    pid = undefined;
    place = new Place();
    // The example keeps its checkpoints in the folder that it is started in: not in that of this repository.
    const { scripts } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { scripts: { start: string } };
    place.write('package.json', JSON.stringify({ name: 'clone', private: true, type: 'module', scripts: { start: scripts.start } }));
    symlinkSync(join(ROOT, 'scripts'), join(place.folder, 'scripts'));
    symlinkSync(join(ROOT, 'docs'), join(place.folder, 'docs'));
    symlinkSync(join(ROOT, 'dist'), join(place.folder, 'dist'));
  });
  afterEach(async () => {
    // A job that was left behind would hold its output open.
    if (pid !== undefined && alive(pid)) process.kill(pid, 'SIGKILL');
    await place.remove();
  });

  it('leaves a command that npx can run in the clone, also where it was built again', () => {
    expect(statSync(join(ROOT, 'dist', 'src', 'cli', 'main.js')).mode & 0o111).toBe(0o111);
  });

  it('ends behind a last checkpoint when npm is told to end, and npm not before it', async () => {
    const npm = place.spawn('npm', ['start', '--', '--output', 'out']);
    await npm.said(/^monitoring: door at/m);
    const [job] = JSON.parse((await place.run('jobs', '--json')).stdout) as { pid: number }[];
    pid = job!.pid;
    expect(pid).not.toBe(npm.child.pid);
    const leftBehind = new Promise<boolean>((resolve) => npm.child.once('exit', () => resolve(alive(job!.pid))));
    npm.child.kill('SIGTERM');
    expect(await leftBehind).toBe(false);
    expect((await npm.ended).stderr).toMatch(/^stopping: a last checkpoint is taken[\s\S]*^monitoring: stopped, checkpoint \d+/m);
    expect(place.announced()).toEqual([]);
  });
});

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
