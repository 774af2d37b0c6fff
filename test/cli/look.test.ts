import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { LONG } from '../long.ts';
import { build, Place, ROOT, type Running, TICKING } from './millrace-process.ts';

let place: Place;
beforeAll(build, 180_000);
beforeEach(() => {
  place = new Place();
});
afterEach(() => place.remove());

interface Node {
  name: string;
  state: string;
  restarts: number;
  mailbox: number;
  metrics?: Record<string, number | null>;
  children: Node[];
}

async function ticking(name = 'ticking', ...options: string[]): Promise<Running> {
  const run = place.start(['run', place.write('ticking.mjs', TICKING), ...options, '--', name]);
  await run.said(/door at/);
  await run.said(/^20 20$/m, 'stdout');
  return run;
}

describe('from another process, a running job', () => {
  it('is found, shown and stopped', async () => {
    const run = await ticking('ticking', '--every', '100ms');
    const jobs = JSON.parse((await place.run('jobs', '--json')).stdout) as { name: string; status: string; pid: number; url: string; id: string }[];
    expect(jobs).toMatchObject([{ name: 'ticking', status: 'running', pid: run.child.pid }]);
    expect((await place.run('jobs')).stdout).toMatch(new RegExp(`^JOB .*\nticking +${jobs[0]!.id} +running +${run.child.pid} `));

    const tree = JSON.parse((await place.run('tree', '--json')).stdout) as Node;
    const [job] = tree.children;
    const tasks = job!.children.flatMap((child) => child.children);
    expect(tasks.map(({ name, state, restarts }) => ({ name, state, restarts }))).toEqual([
      { name: 'ticks-0', state: 'running', restarts: 0 },
      { name: 'sum-0', state: 'running', restarts: 0 },
    ]);
    expect(tasks[1]!.metrics!.recordsIn).toBeGreaterThanOrEqual(20);
    const shown = (await place.run('tree', 'ticking')).stdout;
    expect(shown).toMatch(/^NAME +STATE +RESTARTS +MAILBOX +IN +OUT +WATERMARK +CHECKPOINT\n/);
    expect(shown).toMatch(/^ +└ sum-0 +running +0 +\d+ +\d+ /m);

    let checkpoints: { id: number }[] = [];
    while (checkpoints.length === 0) checkpoints = JSON.parse((await place.run('checkpoints', 'ticking', '--json')).stdout) as { id: number }[];
    expect((await place.run('checkpoints')).stdout).toMatch(/^CHECKPOINT +TAKEN/);

    const stopped = await place.run('stop');
    expect(stopped).toMatchObject({ code: 0, stderr: '' });
    expect(stopped.stdout).toMatch(/^ticking: stopped, checkpoint \d+\n$/);
    expect((await run.ended).code).toBe(0);
    expect(place.announced()).toEqual([]);
    expect((await place.run('jobs')).stdout).toBe('No job runs on this machine.\n');

    // What it has left is listed as before, by the name of the folder too.
    const last = Number(/checkpoint (\d+)/.exec(stopped.stdout)![1]);
    for (const args of [[], ['ticking', '--checkpoints', '.millrace']]) {
      const left = JSON.parse((await place.run('checkpoints', ...args, '--json')).stdout) as { id: number; bytes: number; path: string }[];
      expect(left.at(-1)).toMatchObject({ id: last, bytes: expect.any(Number), path: expect.stringContaining(`chk-${last}-`) });
    }
  });

  it('is cancelled, and begins anew', async () => {
    const run = await ticking();
    expect(JSON.parse((await place.run('cancel', '--json')).stdout)).toMatchObject({ status: 'cancelled' });
    expect((await run.ended).stderr).toContain('ticking: cancelled');
    await (await ticking()).said(/^ticking: begins anew$/m);
  });

  it.runIf(LONG)('is drained: its windows fire before it stops', async () => {
    const module = place.write(
      'windows.mjs',
      TICKING.replace("import { job } from 'millrace';", "import { count, hours, job, tumbling } from 'millrace';").replace(
        /\.reduce\([\s\S]*?\n {4}\.forEach.*\n/,
        ".window(tumbling(hours(1))).aggregate('all', count()).forEach('out', ({ value }) => console.log('window of ' + value));\n",
      ),
    );
    const run = place.start(['run', module]);
    await run.said(/door at/);
    expect((await place.run('stop', '--drain')).code).toBe(0);
    expect((await run.ended).stdout).toMatch(/^window of \d+\n$/);
  });

  it('is watched until it ends', async () => {
    const run = await ticking();
    const watch = place.start(['tree', '--watch', '--json']);
    await watch.said(/^\{.*"ticks-0"/m, 'stdout');
    run.child.kill('SIGTERM');
    expect((await watch.ended).code).toBe(0);
  });

  it.runIf(LONG)('asks for the token that it was given', async () => {
    const run = place.start(['run', place.write('ticking.mjs', TICKING)], { MILLRACE_TOKEN: 'secret', MILLRACE_READ_TOKEN: 'looks' });
    const [, url] = await run.said(/door at (\S+)/);
    expect((await place.run('jobs', '--json')).stdout).toContain('"wants a token"');
    const refused = await place.run('tree', '--url', url!);
    expect(refused).toMatchObject({ code: 1, stdout: '' });
    expect(refused.stderr).toMatch(/^CONTROL_UNAUTHORIZED: .*got none\..*MILLRACE_TOKEN/);
    const looks = (...args: string[]) => place.start([...args, '--url', url!], { MILLRACE_TOKEN: 'looks' }).ended;
    expect((await looks('tree')).stdout).toContain('sum-0');
    expect((await looks('stop')).stderr).toMatch(/^CONTROL_FORBIDDEN: /);
    expect((await place.start(['stop', '--url', url!], { MILLRACE_TOKEN: 'secret' }).ended).code).toBe(0);
  });
});

describe('which job is meant', () => {
  it.runIf(LONG)('must be said where several run', async () => {
    await ticking('one');
    await ticking('two');
    const { code, stderr } = await place.run('stop');
    expect(code).toBe(1);
    expect(stderr).toMatch(/^JOB_AMBIGUOUS: Several jobs run: one \(id \w+, process \d+\), two \(.*\)\. Say which one is meant, by its name or id\.\n$/);
    expect((await place.run('stop', 'two')).stdout).toMatch(/^two: stopped/);
    expect((await place.run('tree')).stdout).toContain('└ one');
    expect((await place.run('tree', 'three')).stderr).toMatch(/^JOB_NOT_FOUND: No job 'three' runs on this machine; there is one \(/);
  });

  it.each([
    [['tree'], /^JOB_NOT_FOUND: No job runs on this machine\. Start one with millrace run, or name a door with --url, or a cluster with --zookeeper\.$/, 1],
    [['stop', 'x'], /^JOB_NOT_FOUND: No job 'x' runs on this machine/, 1],
    [['tree', '--url', 'http://127.0.0.1:1'], /^JOB_NOT_FOUND: Nothing answers at http:\/\/127\.0\.0\.1:1: .*ECONNREFUSED/, 1],
    [['jobs', '--root', '/shop'], /^OPTION_INVALID: --root is of a cluster\. Name its servers with --zookeeper\.$/, 2],
    [['tree', '--url', 'nonsense'], /^OPTION_INVALID: 'nonsense' is no address of a door/, 2],
    [['fly'], /^OPTION_INVALID: Unknown command 'fly'/, 2],
    [['stop', '--hard'], /^OPTION_INVALID: Unknown option '--hard'/, 2],
  ])('millrace %j without such a job says what to do', async (args, error, code) => {
    const ended = await place.run(...args);
    expect(ended.stderr.trimEnd()).toMatch(error);
    expect({ code: ended.code, stdout: ended.stdout }).toEqual({ code, stdout: '' });
  });

  it('--version says which Millrace it is', async () => {
    const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };
    for (const option of ['--version', '-V']) expect(await place.run(option)).toMatchObject({ code: 0, stdout: `${version}\n`, stderr: '' });
  });

  it('help says what there is', async () => {
    const { code, stdout } = await place.run('--help');
    expect(code).toBe(0);
    for (const name of ['run', 'jobs', 'tree', 'checkpoints', 'stop', 'cancel']) expect(stdout).toMatch(new RegExp(`^ +${name}\\b`, 'm'));
    expect((await place.run('run', '--help')).stdout).toContain('Everything after -- is left to the module');
    expect((await place.run()).code).toBe(2);
  });
});
