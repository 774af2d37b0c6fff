// `millrace state`: from another process, of a job that runs, of its checkpoints, and of what it has left.

import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { LONG } from '../long.ts';
import { build, Place } from './millrace-process.ts';

let place: Place;
beforeAll(build, 180_000);
beforeEach(() => {
  place = new Place();
});
afterEach(() => place.remove());

/** Counts words; says when it has read what there is, and what it was told on its input. */
const WORDS = `
import { ingress, job, list } from 'millrace';
import { createInterface } from 'node:readline';
const words = ingress();
let seen = 0;
export default job(process.argv[2] ?? 'words', (env) => {
  env.source('words', words)
    .keyBy((word) => word.key)
    .process('counts', {
      state: { all: list() },
      onRecord({ n }, ctx) {
        ctx.state.all.add(n);
        console.log('seen ' + ++seen);
      },
    });
});
const send = async () => {
  for (const [key, n] of [['a', 1], ['b', 2], ['a', 3], [7n, 4], [['x', 1], 5]]) await words.send({ key, n });
};
send();
process.on('SIGUSR2', () => words.send({ key: 'c', n: 6 }).then(() => words.send({ key: 'b', n: 7 })));
`;

/** Makes its first savepoint itself, where there is none, and begins with it. */
const MOVES = `
import { existsSync } from 'node:fs';
import { job, newSavepoint, process, splitList, value } from 'millrace';
const moved = process()({
  state: { where: value() },
  onRecord({ where, at }, ctx) {
    if (ctx.state.where.get() !== undefined) ctx.emit(ctx.key + ' moved to ' + where);
    ctx.state.where.set(where);
    if (at === 0) ctx.timers.event.set(5);
  },
  onTimer: (_, ctx) => ctx.emit(ctx.key + ' stays in ' + ctx.state.where.get()),
});
if (!existsSync('first'))
  await newSavepoint('moves')
    .feed('moved', { records: [{ user: 'ada', where: 'GB', at: 0 }], key: ({ user }) => user, process: moved })
    .write('first', { note: 'from a file', by: 'tester' });
export default job('moves', (env) => {
  const moves = env.fromArray('in', [['ada', 1, 'FR'], ['bob', 2, 'FR'], ['ada', 3, 'DE']].map(([user, at, where]) => ({ user, at, where })), { timestamp: ({ at }) => at });
  moves.keyBy(({ user }) => user).process('moved', moved).forEach('out', () => {});
  moves.process('all', { state: { names: splitList() }, onRecord: ({ user }, ctx) => ctx.state.names.add(user) });
}, { restore: { from: 'first' } });
`;

async function counting(name = 'words') {
  const run = place.start(['run', place.write('words.mjs', WORDS), '--every', '1h', '--', name]);
  await run.said(/door at/);
  await run.said(/^seen 5$/m, 'stdout');
  return run;
}
const linesOf = (text: string): string[] => text.trimEnd().split('\n');

describe('millrace state', () => {
  it('lists, gets and scans what a running job holds', async () => {
    await counting();
    expect((await place.run('state', 'ls')).stdout).toMatch(/^OPERATOR +STATE +KIND +ROWS +BYTES\ncounts +all +list +4 +\d+\n$/);
    expect(JSON.parse((await place.run('state', 'get', 'counts', 'all', 'a')).stdout)).toEqual([1, 3]);
    expect(JSON.parse((await place.run('state', 'get', 'counts', 'all', '7n', '--json')).stdout)).toEqual({ found: true, value: [4] });
    expect(JSON.parse((await place.run('state', 'get', 'counts', 'all', '["x", 1]')).stdout)).toEqual([5]);
    const nothing = await place.run('state', 'get', 'counts', 'all', '7');
    expect(nothing).toMatchObject({ code: 1, stdout: '' });
    expect(nothing.stderr).toMatch(
      /^STATE_NOT_FOUND: The key 7 has nothing in the state 'all' of 'counts'\. Is the key of that type\? 7 was taken for a number/,
    );
    expect((await place.run('state', 'get', 'counts', 'some', 'a')).stderr).toMatch(/^STATE_NOT_FOUND: 'counts' has no state 'some'\./);
    expect(linesOf((await place.run('state', 'scan', 'counts', 'all')).stdout).sort()).toEqual(['7n\t[4]', '["x",1]\t[5]', 'a\t[1,3]', 'b\t[2]']);
    expect(linesOf((await place.run('state', 'scan', 'counts', '--prefix', 'x')).stdout)).toEqual(['all\t["x",1]\t[5]']);
    expect(linesOf((await place.run('state', 'scan', 'counts', '--largest', '1', '--json')).stdout).map((line) => JSON.parse(line))).toEqual([
      { uid: 'counts', state: 'all', key: 'a', value: [1, 3], bytes: expect.any(Number) },
    ]);
  });

  it('does so of checkpoints, exports them, and says what differs; also when the job has gone', async () => {
    const run = await counting('counted');
    expect((await place.run('checkpoint')).code).toBe(0);
    run.child.kill('SIGUSR2');
    await run.said(/^seen 7$/m, 'stdout');
    const exported = linesOf((await place.run('state', 'export', 'counts')).stdout).map((line) => JSON.parse(line) as { key: unknown; value: unknown });
    expect(exported.map(({ key, value }) => [JSON.stringify(key), value]).sort()).toEqual([
      ['"a"', [1, 3]],
      ['"b"', [2, 7]],
      ['"c"', [6]],
      ['["x",1]', [5]],
      ['{"$bigint":"7"}', [4]],
    ]);
    const both = ['~ counts all b [2] → [2,7]', '+ counts all c [6]'].sort();
    expect(linesOf((await place.run('state', 'diff', '1', '2', 'counts')).stdout).sort()).toEqual(both);
    expect((await place.run('state', 'diff', '1', '2')).stdout).toMatch(/^~ words splits ingress .*"position":5.* → .*"position":7/m);
    expect((await place.run('savepoint', 'saved')).code).toBe(0);
    expect((await place.run('stop')).code).toBe(0);
    await run.ended;

    expect(linesOf((await place.run('state', 'diff', '1', 'saved', 'counts', '--json')).stdout).map((line) => JSON.parse(line))).toEqual(
      expect.arrayContaining([
        { uid: 'counts', state: 'all', key: 'b', change: 'changed', before: [2], after: [2, 7] },
        { uid: 'counts', state: 'all', key: 'c', change: 'added', after: [6] },
      ]),
    );
    expect((await place.run('state', 'get', 'counts', 'all', 'b', '--at', '1')).stdout).toBe('[\n  2\n]\n');
    expect((await place.run('state', 'get', 'counts', 'all', 'b', '--at', 'latest')).stdout).toBe('[\n  2,\n  7\n]\n');
    expect((await place.run('state', 'get', 'counts', 'all', 'b', '--at', 'saved', '--json')).stdout).toBe('{"found":true,"value":[2,7]}\n');
    expect((await place.run('state', 'ls', '--at', 'saved')).stdout).toMatch(
      /^OPERATOR +STATE +KIND +KEYS +BYTES\ncounts +all +list +5 +\d+\nwords +splits +source +1 +\d+\n$/,
    );
    expect(linesOf((await place.run('state', 'scan', 'counts', 'all', '--at', '1', '--prefix', 'a')).stdout)).toEqual(['a\t[1,3]']);
    expect(linesOf((await place.run('state', 'scan', 'counts', 'all', '--at', 'saved', '--limit', '2')).stdout).length).toBe(2);
    expect(linesOf((await place.run('state', 'scan', 'counts', '--at', 'saved', '--largest', '1')).stdout)[0]).toMatch(/\t\[(1,3|2,7)\]$/);
    const none = await place.run('state', 'get', 'counts', 'all', 'b', '--at', '99');
    expect(none).toMatchObject({ code: 1, stdout: '' });
    expect(none.stderr).toMatch(/^CHECKPOINT_NOT_FOUND: There is no checkpoint '99' in .*; there are 1, 2/);
  });

  it.runIf(LONG)('shows what was done to a savepoint without a job, lists and broadcast maps, and replays a job from it', async () => {
    const module = place.write('moves.mjs', MOVES);
    expect(await place.run('run', module, '--checkpoints', 'kept')).toMatchObject({ code: 0 });
    const ls = await place.run('state', 'ls', '--at', 'first');
    expect(ls.stdout).toMatch(
      /^edited \d{4}-.* by tester with millrace \d.*: 'moved' added \(timers, where\): 2 rows written\n {2}note: from a file\nOPERATOR/,
    );
    expect(JSON.parse((await place.run('state', 'edits', 'first', '--json')).stdout)).toMatchObject({
      by: 'tester',
      note: 'from a file',
      operators: [{ uid: 'moved', written: 2 }],
    });
    expect((await place.run('state', 'get', 'all', 'names', '--at', 'latest', '--checkpoints', 'kept')).stdout.replace(/\s/g, '')).toBe('["ada","bob","ada"]');
    const replayed = await place.run('state', 'replay', module, '--at', 'first', '--uid', 'moved', '--key', 'ada');
    expect(linesOf(replayed.stdout)).toEqual([
      '#0 start',
      '   where: "GB"',
      '   timer waits: event 1970-01-01T00:00:00.005Z',
      '#1 record {"user":"ada","at":1,"where":"FR"} at 1970-01-01T00:00:00.001Z',
      '   where: "GB" → "FR"',
      '   out: "ada moved to FR"',
      '#2 record {"user":"ada","at":3,"where":"DE"} at 1970-01-01T00:00:00.003Z',
      '   where: "FR" → "DE"',
      '   out: "ada moved to DE"',
      '#3 timer {"timer":{"at":5,"domain":"event"}} at 1970-01-01T00:00:00.005Z (event time the end)',
      '   out: "ada stays in DE"',
    ]);
    const some = await place.run('state', 'replay', module, '--at', 'first', '--uid', 'moved', '--key', 'ada', '--until', '1', '--json');
    expect(linesOf(some.stdout).map((line) => JSON.parse(line))).toMatchObject([
      { step: 0, kind: 'start', timestamp: null, before: { where: 'GB' } },
      {
        step: 1,
        kind: 'record',
        timestamp: 1,
        watermark: null,
        before: { where: 'GB' },
        after: { where: 'FR' },
        outputs: [{ value: 'ada moved to FR', timestamp: 1 }],
      },
    ]);
  });

  const table: [args: string[], error: RegExp, code: number][] = [
    [['ls'], /^JOB_NOT_FOUND: No job runs on this machine\./, 1],
    [['get', 'a', 'b', 'c'], /^JOB_NOT_FOUND: No job runs on this machine\./, 1],
    [['get', 'a', 'b', 'c', '--at', 'nothing'], /^CHECKPOINT_NOT_FOUND: There is no checkpoint and no savepoint at .*nothing\./, 1],
    [['get', 'a', 'b', 'null', '--at', 'nothing'], /^KEY_UNSUPPORTED: null is no key\./, 1],
    [['scan', 'a', '--limit', 'x'], /^OPTION_INVALID: 'x' is no number for --limit\./, 2],
    [['get', 'a', 'b', 'c', '--at', '3', '--checkpoints', 'nowhere'], /^CHECKPOINT_NOT_FOUND: There are no checkpoints in nowhere\./, 1],
    [['get', 'a'], /^OPTION_INVALID: Missing required argument 'state'/, 2],
  ];
  it.each(table.filter((_, i) => LONG || i % 3 === 0))('%j without such a thing says what to do', async (args, error, code) => {
    const ended = await place.run('state', ...args);
    expect(ended.stderr.trimEnd()).toMatch(error);
    expect({ code: ended.code, stdout: ended.stdout }).toEqual({ code, stdout: '' });
  });
});
