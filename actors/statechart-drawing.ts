// Draws a statechart as a mermaid diagram, from the machine's own data, so that a drawing cannot say what the machine does not.

import type { AnyStateMachine } from 'xstate';

interface DrawnState {
  readonly type?: string;
  readonly description?: string;
  readonly on?: Readonly<Record<string, unknown>>;
}

/**
 * Draws a flat statechart as a mermaid `stateDiagram-v2`: states with their descriptions, then moves in the order they are declared.
 * @example
 * import { createMachine } from 'xstate';
 *
 * const door = createMachine({ initial: 'shut', states: { shut: { on: { open: 'ajar' } }, ajar: { type: 'final' } } });
 * assert.equal(drawStatechart(door), 'stateDiagram-v2\n  [*] --> shut\n  shut --> ajar: open\n  ajar --> [*]');
 */
export function drawStatechart(machine: AnyStateMachine): string {
  const config = machine.config as { initial?: unknown; states?: Readonly<Record<string, DrawnState>> };
  const states = Object.entries(config.states ?? {});
  const lines = ['stateDiagram-v2'];
  for (const [name, state] of states) if (state.description !== undefined) lines.push(`  ${name}: ${name} (${state.description.replaceAll(':', ' –')})`);
  if (typeof config.initial === 'string') lines.push(`  [*] --> ${config.initial}`);
  for (const [name, state] of states) {
    for (const [event, target] of Object.entries(state.on ?? {})) lines.push(`  ${name} --> ${targetOf(target)}: ${event}`);
    if (state.type === 'final') lines.push(`  ${name} --> [*]`);
  }
  return lines.join('\n');
}

function targetOf(target: unknown): string {
  if (typeof target === 'string') return target;
  return String((target as { target?: unknown }).target);
}
