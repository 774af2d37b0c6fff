import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { ACTOR_ERROR_CODES, cellLifecycle, childLifecycle, drawStatechart } from '../../actors/index.ts';

const page = readFileSync(new URL('../../docs/actors.md', import.meta.url), 'utf8');
const example = readFileSync(new URL('../../docs/examples/actors.ts', import.meta.url), 'utf8');

test.each([
  ['cellLifecycle', cellLifecycle],
  ['childLifecycle', childLifecycle],
])('the drawing of %s in the docs is the one its data gives', (name, machine) => {
  const drawn = page.split(`<!-- drawn from ${name} -->\n\`\`\`mermaid\n`)[1]?.split('\n```')[0];
  expect(drawn).toBe(drawStatechart(machine));
});

test('the docs show the example as it is', () => {
  const [, , ...code] = example.trimEnd().split('\n');
  expect(page).toContain(`\`\`\`ts\n${code.join('\n')}\n\`\`\``);
});

test('the example runs and prints what the docs say', async () => {
  const printed: unknown[] = [];
  const log = console.log;
  console.log = (line: unknown) => void printed.push(line);
  try {
    await import('../../docs/examples/actors.ts');
  } finally {
    console.log = log;
  }
  expect(printed).toHaveLength(1);
  expect(page).toContain(`\`\`\`json\n${String(printed[0])}\n\`\`\``);
});

test('every error code is in the table of the docs, and no other', () => {
  const listed = [...page.matchAll(/^\| `(ERR_[A-Z_]+)` \|/gm)].map((match) => match[1]);
  expect(listed).toEqual([...ACTOR_ERROR_CODES].sort());
});
