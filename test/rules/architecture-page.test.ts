import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { drawStatechart } from '../../actors/index.ts';
import { checkpointLifecycle } from '../../src/checkpoint/coordinator.ts';
import { jobLifecycle } from '../../src/execution/lifecycle.ts';

const page = readFileSync(new URL('../../docs/architecture.md', import.meta.url), 'utf8');

describe('docs/architecture.md', () => {
  it.each([
    ['jobLifecycle', jobLifecycle],
    ['checkpointLifecycle', checkpointLifecycle],
  ] as const)('draws %s as the machine is', (name, machine) => {
    const drawn = page.split(`<!-- drawn from ${name} -->\n\`\`\`mermaid\n`)[1]?.split('\n```')[0];
    expect(drawn).toBe(drawStatechart(machine));
  });
});
