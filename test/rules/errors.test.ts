import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import * as actors from '../../actors/errors.ts';
import { CODES, HOPELESS_ERRNOS, MillraceError } from '../../src/errors.ts';
import { HOPELESS_ERRNOS as HOPELESS_FOR_STATE, STATE_CODES } from '../../state-backends/state-error.ts';
import { ROOT, sourceFiles } from './source-tree.ts';

const page = readFileSync(join(ROOT, 'docs/errors.md'), 'utf8');
const documented = new Map<string, { meaning: string; todo: string; retryable: boolean }>();
for (const line of page.split('\n')) {
  const match = /^\| `([A-Z_]+)` \| (.+) \| (.+) \| (yes|no) \|$/.exec(line);
  if (match !== null) documented.set(match[1]!, { meaning: match[2]!, todo: match[3]!, retryable: match[4] === 'yes' });
}
const actorRetryable = Object.fromEntries(actors.ACTOR_ERROR_CODES.map((code) => [code, { retryable: new actors.ActorError(code, '').retryable }]));
const codes: Record<string, { retryable: boolean }> = { ...CODES, ...STATE_CODES, ...actorRetryable };

describe('docs/errors.md', () => {
  it('has every code, once, and no other', () => {
    expect([...documented.keys()].sort()).toEqual(Object.keys(codes).sort());
    expect(page.match(/^\| `[A-Z_]+`/gm)?.length).toBe(documented.size);
  });

  it('says of each whether trying again can help, as the code does', () => {
    for (const [code, { retryable }] of Object.entries(codes)) expect({ code, retryable: documented.get(code)?.retryable }).toEqual({ code, retryable });
  });

  it('says what each means and what to do, in sentences', () => {
    for (const [code, { meaning, todo }] of documented) {
      expect(`${code}: ${meaning}`).toMatch(/: [A-Z`].*\.$/);
      expect(`${code}: ${todo}`).toMatch(/: [A-Z`].*\.$/);
    }
  });
});

describe('a sentence', () => {
  it('that ends with the message of another error ends with one full stop', () => {
    const ended = ['It broke', 'It broke.', 'Why?', 'and so on...'].map((said) => new MillraceError('SOURCE_FAILED', `It failed: ${said}.`, { todo: 'Look.' }));
    expect(ended.map(({ sentence }) => sentence)).toEqual(['It failed: It broke.', 'It failed: It broke.', 'It failed: Why?', 'It failed: and so on....']);
    expect(ended[1]!.message).toBe('It failed: It broke. Look.');
  });
});

describe('a code', () => {
  it('of the system that no restart can help is the same in both', () => {
    expect([...HOPELESS_ERRNOS]).toEqual([...HOPELESS_FOR_STATE]);
  });

  it('that two parts share means the same in both', () => {
    for (const [code, { retryable }] of Object.entries(STATE_CODES)) {
      if (code in CODES) expect({ code, retryable }).toEqual({ code, retryable: CODES[code as keyof typeof CODES].retryable });
    }
  });

  it('that is thrown is one of them', () => {
    const thrown = sourceFiles('src', 'actors', 'state-backends').flatMap(({ path, text }) =>
      [...text.matchAll(/new (?:MillraceError|StateError|ActorError)\(\s*'([A-Z_]+)'/g)].map((match) => ({ path, code: match[1]! })),
    );
    expect(thrown.filter(({ code }) => !(code in codes))).toEqual([]);
  });
});
