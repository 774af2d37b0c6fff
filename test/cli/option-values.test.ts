import { describe, expect, it } from 'vitest';
import { checkpointsOf, durationOf, restoreOf, tokensIn } from '../../src/cli/option-values.ts';
import { errorLine } from '../../src/cli/said.ts';
import { table, treeLines } from '../../src/cli/views.ts';
import { MillraceError } from '../../src/errors.ts';

describe('a value of an option', () => {
  it.each([
    ['500ms', 500],
    ['10s', 10_000],
    ['1.5m', 90_000],
    ['2h', 7_200_000],
    ['1d', 86_400_000],
  ])('%s is a time of %d ms', (text, ms) => {
    expect(durationOf(text, '--every')).toBe(ms);
  });

  it.each(['', '0s', '10', '-1s', 's', '1 s', '1e3ms'])("'%s' is no time", (text) => {
    expect(() => durationOf(text, '--every')).toThrow(expect.objectContaining({ code: 'OPTION_INVALID' }));
  });

  it('takes tokens of the environment: one for everything, or one for each role', () => {
    expect(tokensIn({})).toEqual({});
    expect(tokensIn({ MILLRACE_TOKEN: 'a' })).toEqual({ token: 'a' });
    expect(tokensIn({ MILLRACE_TOKEN: 'a', MILLRACE_READ_TOKEN: 'b' })).toEqual({ token: { read: 'b', operate: 'a' } });
    expect(tokensIn({ MILLRACE_READ_TOKEN: 'b' })).toEqual({ token: { read: 'b' } });
  });

  it('says what to restore by word, id or path', () => {
    expect(['latest', 'none', '12', 'a/chk-12'].map((text) => restoreOf(text))).toEqual(['latest', 'none', { from: 12 }, { from: 'a/chk-12' }]);
  });

  it('of checkpoints goes over the job’s, which goes over the defaults of the command', () => {
    const none = { directory: undefined, every: undefined };
    const own = { directory: 'own', every: 5, retain: 9 };
    expect(checkpointsOf(none, undefined)).toEqual({ directory: '.millrace', every: 10_000 });
    expect(checkpointsOf(none, own)).toBe(own);
    expect(checkpointsOf(none, false)).toBe(false);
    expect(checkpointsOf({ directory: undefined, every: 1 }, own)).toEqual({ directory: 'own', every: 1, retain: 9 });
    expect(checkpointsOf({ directory: 'd', every: undefined }, false)).toEqual({ directory: 'd', every: 10_000 });
    expect(checkpointsOf({ directory: false, every: undefined }, own)).toBe(false);
  });

  it('of checkpoints may be an address: then the registry stays where it is, and with a path everything goes there', () => {
    const at = checkpointsOf({ directory: 's3://bucket/jobs/', every: undefined }, { directory: 'own', retain: 9 });
    expect(at).toMatchObject({ directory: 'own', retain: 9, storage: { kind: 's3', root: 's3://bucket/jobs' } });
    expect(checkpointsOf({ directory: 'd', every: undefined }, at)).toEqual({ directory: 'd', retain: 9 });
    expect(() => checkpointsOf({ directory: 'gs://bucket', every: undefined }, undefined)).toThrow(expect.objectContaining({ code: 'OPTION_INVALID' }));
  });
});

describe('what is printed', () => {
  it('of an error is one line, whatever its message', () => {
    expect(errorLine(new MillraceError('SOURCE_FAILED', 'It\n  broke.', { todo: 'Look.' }))).toBe('SOURCE_FAILED: It broke. Look.');
    expect(errorLine(new Error('plain'))).toBe('RUNTIME_FAILED: plain');
    expect(errorLine(Object.assign(new Error('held'), { code: 'STATE_IO' }))).toBe('STATE_IO: held');
    expect(errorLine(new Error('plain'), 'USER_FUNCTION_FAILED')).toBe('USER_FUNCTION_FAILED: plain');
    expect(errorLine('thrown')).toBe('RUNTIME_FAILED: thrown');
  });

  it('of a table has columns, numbers to the right', () => {
    expect(
      table([
        ['A', 'N'],
        ['x', '5'],
        ['long', '123'],
      ]),
    ).toEqual(['A       N', 'x       5', 'long  123']);
  });

  it('of a tree shows who stands below whom', () => {
    const leaf = (name: string) => ({ name, kind: 'actor', state: 'running', restarts: 0, mailbox: 0, children: [] });
    const root = {
      ...leaf('host'),
      children: [
        { ...leaf('a'), children: [leaf('b')] },
        { ...leaf('c'), metrics: { recordsIn: 3, watermark: null } },
      ],
    };
    expect(treeLines(root).map((line) => line.slice(0, 16).trimEnd())).toEqual([
      'NAME   STATE',
      'host   running',
      '├ a    running',
      '│ └ b  running',
      '└ c    running',
    ]);
    expect(treeLines(root)[4]).toMatch(/0 +0 +3 +–$/);
  });
});
