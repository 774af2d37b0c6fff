import { readdirSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { LONG } from '../long.ts';
import { build, Place, TICKING } from './millrace-process.ts';

let place: Place;
beforeAll(build, 180_000);
beforeEach(() => {
  place = new Place();
});
afterEach(() => place.remove());

describe('millrace run', () => {
  it('runs a bounded job to its end, in TypeScript, with what stands behind -- in process.argv', async () => {
    const module = place.write(
      'count.ts',
      `import { job, type Stream } from 'millrace';
       const upTo: number = Number(process.argv[2]);
       export default job('count', (env) => {
         const numbers: Stream<number> = env.fromArray('in', Array.from({ length: upTo }, (_, i) => i));
         numbers.forEach('out', (n) => console.log(n));
       });`,
    );
    const { code, stdout, stderr } = await place.run('run', module, '--parallelism', '1', '--', '3');
    expect({ code, stdout }).toEqual({ code: 0, stdout: '0\n1\n2\n' });
    expect(stderr).toMatch(/^count: begins anew\ncount: door at http:\/\/127\.0\.0\.1:\d+\ncount: finished/);
    expect(place.has('.millrace/count')).toBe(true);
    expect(place.announced()).toEqual([]);
  });

  it.runIf(LONG)('says that a job has finished before, and runs it anew when told', async () => {
    const module = place.write(
      'once.mjs',
      `import { job } from 'millrace';\nexport default job('once', (env) => { env.fromArray('in', ['x']).forEach('out', (x) => console.log(x)); });`,
    );
    expect((await place.run('run', module)).stdout).toBe('x\n');
    const again = await place.run('run', module);
    expect(again).toMatchObject({ code: 0, stdout: '' });
    expect(again.stderr).toContain('once: has finished before, and its result is returned; --restore none runs it anew');
    expect((await place.run('run', module, '--restore', 'none')).stdout).toBe('x\n');
  });

  it('stops at the first Ctrl-C and resumes from that checkpoint', async () => {
    const module = place.write('ticking.mjs', TICKING);
    const first = place.start(['run', module, '--every', '200ms']);
    await first.said(/^40 40$/m, 'stdout');
    first.child.kill('SIGINT');
    const ended = await first.ended;
    expect(ended.code).toBe(0);
    const [, id] = /^ticking: stopped, checkpoint (\d+), taken \d\d:\d\d:\d\d$/m.exec(ended.stderr)!;
    const second = place.start(['run', module]);
    await second.said(new RegExp(`^ticking: resumes from checkpoint ${id}, taken \\d\\d:\\d\\d:\\d\\d$`, 'm'));
    // Each tick was counted once: number and count stay the same.
    const [, n, count] = await second.said(/^(\d+) (\d+)$/m, 'stdout');
    expect(count).toBe(n);
    expect(Number(n)).toBeGreaterThan(40);
  });

  it('goes on after SIGKILL from the last checkpoint, and says so', async () => {
    const module = place.write('ticking.mjs', TICKING);
    const first = place.start(['run', module, '--every', '100ms']);
    await first.said(/door at/);
    let checkpoints: { id: number }[] = [];
    while (checkpoints.length === 0) checkpoints = JSON.parse((await place.run('checkpoints', '--json')).stdout) as { id: number }[];
    first.child.kill('SIGKILL');
    await first.ended;
    expect(place.announced()).toHaveLength(1);
    expect((await place.run('jobs', '--json')).stdout).toBe('[]\n');
    expect(place.announced()).toEqual([]);
    const second = place.start(['run', module]);
    const [, id] = await second.said(/^ticking: resumes from checkpoint (\d+), taken/m);
    expect(Number(id)).toBeGreaterThanOrEqual(checkpoints[0]!.id);
    const [, n, count] = await second.said(/^(\d+) (\d+)$/m, 'stdout');
    expect(count).toBe(n);
  });

  it.each([
    ['prints records', "import { job } from 'millrace';\nimport { print } from 'millrace/connectors';", "stream.sink('out', print());"],
    ['writes itself', "import { job } from 'millrace';", "stream.forEach('out', (n) => { process.stdout.write(n + String.fromCharCode(10)); });"],
  ])('ends quietly where nobody reads its output any more: a job that %s', async (_, imports, sink) => {
    const module = place.write(
      'endless.mjs',
      `${imports}
       const endless = {
         bounded: false,
         splits: async () => ['all'],
         splitId: (split) => split,
         async *read(_split, from = 0, { signal }) {
           for (let n = from; !signal.aborted; n += 100) {
             await new Promise(setImmediate);
             yield { values: Array.from({ length: 100 }, (_, i) => n + i), position: n + 100 };
           }
         },
       };
       export default job('endless', (env) => { const stream = env.source('in', endless); ${sink} });`,
    );
    const run = place.start(['run', module]);
    await run.said(/^50$/m, 'stdout');
    run.child.stdout!.destroy();
    const { code, stderr } = await run.ended;
    expect({ code, errors: stderr.match(/^[A-Z_]+:.*$/gm) }).toEqual({ code: 0, errors: null });
    expect(stderr.trimEnd().split('\n').at(-1)).toMatch(/^endless: (stopped|ended, since nobody reads its output any more)/);
  });

  it.runIf(LONG)('speaks of no last checkpoint where it takes none', async () => {
    const run = place.start(['run', place.write('ticking.mjs', TICKING), '--no-checkpoints']);
    await run.said(/^40 40$/m, 'stdout');
    run.child.kill('SIGINT');
    const { code, stderr } = await run.ended;
    expect(code).toBe(0);
    expect(stderr).toMatch(/^stopping \(once more: cancel\)\nticking: stopped$/m);
  });

  it.runIf(LONG)('takes a second, later signal for cancel, and an echo of the first one for nothing', async () => {
    const module = place.write(
      'stuck.mjs',
      TICKING.replace(
        "forEach('out', ({ n, count }) => {",
        "forEach('out', async ({ n, count }) => { if (n === 20) { console.log('stuck'); await new Promise(() => {}); }",
      ),
    );
    const run = place.start(['run', module]);
    await run.said(/stuck/, 'stdout');
    run.child.kill('SIGINT');
    run.child.kill('SIGINT');
    await run.said(/^stopping/m);
    run.child.kill('SIGTERM');
    const { code, stderr } = await run.ended;
    expect(code).toBe(0);
    expect(stderr.match(/^(stopping|cancelling|ticking: cancelled).*$/gm)?.map((line) => line.split(/[: ,]/)[0])).toEqual([
      'stopping',
      'cancelling',
      'ticking',
    ]);
    expect(place.announced()).toEqual([]);
  });

  it.runIf(LONG)('waits for another process with --wait', async () => {
    const module = place.write('ticking.mjs', TICKING);
    const first = place.start(['run', module]);
    await first.said(/door at/);
    const refused = await place.run('run', module);
    expect(refused.code).toBe(1);
    expect(refused.stderr).toMatch(/^JOB_ALREADY_RUNNING: .*process \d+.*--wait/m);
    const second = place.start(['run', module, '--wait']);
    await second.said(/waiting for its end/);
    first.child.kill('SIGTERM');
    await second.said(/resumes from checkpoint/);
  });

  it('says restarts with their cause, and fails with code and sentence when it gives up', async () => {
    const module = place.write(
      'failing.mjs',
      `import { job } from 'millrace';
       export default job('failing', (env) => { env.fromArray('in', [1]).map(() => { throw new Error('no such thing'); }).forEach('out', () => {}); },
         { restarts: { max: 1, within: 60000, backoff: { initial: 1, max: 1 } } });`,
    );
    const { code, stderr } = await place.run('run', module);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^restart 1, because of .*: USER_FUNCTION_FAILED: .*no such thing/m);
    expect(stderr.trimEnd().split('\n').at(-1)).toMatch(/^USER_FUNCTION_FAILED: .*no such thing/);
    expect(stderr).not.toMatch(/^\s+at /m);
    expect(place.announced()).toEqual([]);
  });

  it('says why a job stopped by policy: with the code of the error, or as a failure of the program, and one full stop', async () => {
    const stopping = (error: string): string =>
      `import { job } from 'millrace';
       export default job('policy', (env) => { env.fromArray('in', [1]).map(() => { throw ${error}; }).onError('stop').forEach('out', () => {}); });`;
    place.write('plain.mjs', stopping(`new Error('It broke.')`));
    expect((await place.run('run', 'plain.mjs', '--no-checkpoints')).stderr).toMatch(/^policy: stopped, .*because of USER_FUNCTION_FAILED: It broke\.$/m);
    place.write('coded.mjs', stopping(`Object.assign(new Error('It broke.'), { code: 'MILL_STOOD' })`));
    expect((await place.run('run', 'coded.mjs', '--no-checkpoints')).stderr).toMatch(/^policy: stopped, .*because of MILL_STOOD: It broke\.$/m);
  });

  it.runIf(LONG)('keeps the job’s own checkpoints, events and logger unless told otherwise', async () => {
    const module = place.write(
      'own.mjs',
      `import { job } from 'millrace';
       export default job('own', (env) => { env.fromArray('in', [1]).forEach('out', () => {}); },
         { checkpoints: { directory: 'elsewhere' }, onEvent: (e) => console.log(e.type, e.status ?? '') });`,
    );
    const { stdout } = await place.run('run', module);
    expect(stdout).toMatch(/^status running$[\s\S]*^status finished$/m);
    expect([place.has('elsewhere/own'), place.has('.millrace')]).toEqual([true, false]);
    for (const restore of [[], ['--restore', 'none'], ['--restore', 'latest']])
      expect((await place.run('run', module, '--no-checkpoints', ...restore)).stderr).toContain('own: begins anew, without checkpoints');
  });

  it('keeps state in LevelDB when told, and leaves none of it behind', async () => {
    const module = place.write('ticking.mjs', TICKING);
    const run = place.start(['run', module, '--state', 'level']);
    await run.said(/^20 20$/m, 'stdout');
    expect(place.has('.millrace/state')).toBe(true);
    run.child.kill('SIGINT');
    expect((await run.ended).code).toBe(0);
    expect(readdirSync(join(place.folder, '.millrace', 'state'))).toEqual([]);
  });

  it('says everything as JSON with --json', async () => {
    const module = place.write(
      'once.mjs',
      `import { job } from 'millrace';\nexport default job('once', (env) => { env.fromArray('in', ['x']).forEach('out', () => {}); });`,
    );
    const { stderr } = await place.run('run', module, '--json');
    const lines = stderr
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as { event: string });
    expect(lines.map(({ event }) => event)).toEqual(['started', 'door', 'ended']);
    const failed = await place.run('run', 'nowhere.mjs', '--json');
    expect(JSON.parse(failed.stderr)).toMatchObject({ error: { code: 'MODULE_NOT_FOUND', retryable: false } });
  });
});

describe('what cannot be run', () => {
  const ONCE = `import { job } from 'millrace';\nexport default job('once', (env) => { env.fromArray('in', ['x']).forEach('out', () => {}); });`;

  const table: [what: string, source: string | undefined, args: string[], code: number, error: RegExp][] = [
    ['an unknown module', undefined, [], 1, /^MODULE_NOT_FOUND: There is no module at .*given\.mjs\. Correct the path/],
    ['a module without a default export', 'export const x = 1;', [], 1, /^MODULE_WITHOUT_JOB: .*no default export\. Write export default job\(…\)\.$/],
    ['a module whose default export is no job', 'export default () => 1;', [], 1, /^MODULE_WITHOUT_JOB: .*\(a function\)/],
    [
      'a module that throws',
      `\nthrow new Error('first\\nsecond');`,
      [],
      1,
      /^MODULE_FAILED: .*first second \(.*given\.mjs:2\)\. Correct the module; MILLRACE_DEBUG=1 shows the stack\.$/,
    ],
    ['a module with a slip in its syntax', 'export default job(;', [], 1, /^MODULE_FAILED: .*Unexpected token ';'.*given\.mjs:1/],
    ['a module that imports what is not there', `import 'nothing-of-that-name';`, [], 1, /^MODULE_FAILED: .*nothing-of-that-name.*install the package/],
    ['an unknown option', ONCE, ['--frobnicate'], 2, /^OPTION_INVALID: Unknown option '--frobnicate'\. Options of the module stand after --/],
    ['a misspelt option', ONCE, ['--paralelism', '2'], 2, /^OPTION_INVALID: Unknown option '--paralelism' \(Did you mean --parallelism\?\)/],
    ['an option without its value', ONCE, ['--every'], 2, /^OPTION_INVALID: Option '--every <time>' argument missing\./],
    ['a time without a unit', ONCE, ['--every', '10'], 2, /^OPTION_INVALID: '10' is no time for --every\. Write a number with/],
    ['a parallelism of nothing', ONCE, ['--parallelism', '0'], 2, /^OPTION_INVALID: '0' is no number for --parallelism/],
    ['an unknown state backend', ONCE, ['--state', 'floppy'], 2, /^OPTION_INVALID: 'floppy' is no state backend\. Write memory, level or level:DIRECTORY\.$/],
    ['a port beyond all', ONCE, ['--port', '70000'], 2, /^OPTION_INVALID: '70000' is no port/],
    ['--every without checkpoints', ONCE, ['--no-checkpoints', '--every', '1s'], 2, /^OPTION_INVALID: --every and --no-checkpoints exclude each other/],
    [
      '--restore without checkpoints',
      ONCE,
      ['--no-checkpoints', '--restore', '7'],
      2,
      /^OPTION_INVALID: --restore with a checkpoint needs checkpoints.*or leave --restore out/,
    ],
    [
      '--restore of a job that has switched checkpoints off',
      ONCE.replace(/\);$/, ', { checkpoints: false });'),
      ['--restore', '7'],
      2,
      /^OPTION_INVALID: --restore with a checkpoint needs checkpoints/,
    ],
    [
      'an unknown checkpoint',
      ONCE,
      ['--restore', '99'],
      1,
      /^CHECKPOINT_NOT_FOUND: There is no checkpoint '99' of the job 'once' .*none is retained.*latest or none\.$/,
    ],
    ['a checkpoint at a path where none is', ONCE, ['--restore', 'here/chk-1'], 1, /^CHECKPOINT_NOT_FOUND: There is no checkpoint '.*here\/chk-1'/],
    ['a checkpoint directory that is a file', ONCE, ['--checkpoints', 'given.mjs'], 1, /^CHECKPOINT_DIRECTORY: .*given\.mjs/],
  ];
  it.each(table.filter((_, i) => LONG || i % 3 === 0))('%s is refused with code, sentence and what to do', async (_what, source, args, code, error) => {
    if (source !== undefined) place.write('given.mjs', source);
    const ended = await place.run('run', 'given.mjs', ...args);
    expect(ended.stderr.trimEnd().split('\n')).toHaveLength(1);
    expect(ended.stderr.trimEnd()).toMatch(error);
    expect({ code: ended.code, stdout: ended.stdout }).toEqual({ code, stdout: '' });
    expect(place.announced()).toEqual([]);
  });

  it('a TypeScript module with syntax that does not strip is refused with the place', async () => {
    place.write('enums.ts', 'enum Colour { Red }\nexport default Colour;');
    const { code, stderr } = await place.run('run', 'enums.ts');
    expect(code).toBe(1);
    expect(stderr).toMatch(/^MODULE_FAILED: .*enum/i);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
  });

  it('a port that is taken is refused before the job starts', async () => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    try {
      place.write('given.mjs', ONCE);
      const { port } = server.address() as AddressInfo;
      const { code, stderr } = await place.run('run', 'given.mjs', '--port', String(port));
      expect({ code, stderr: stderr.trimEnd() }).toEqual({
        code: 1,
        stderr: `PORT_IN_USE: The port ${port} of 127.0.0.1 is taken. Choose another with --port (control.port), or 0 for a free one.`,
      });
      expect(place.has('.millrace')).toBe(false);
    } finally {
      await new Promise((resolve) => server.close(resolve));
    }
  });

  it('shows the stack with MILLRACE_DEBUG', async () => {
    place.write('given.mjs', `throw new Error('deep');`);
    const { stderr } = await place.start(['run', 'given.mjs'], { MILLRACE_DEBUG: '1' }).ended;
    expect(stderr).toMatch(/^\s+at .*given\.mjs:1/m);
  });
});
