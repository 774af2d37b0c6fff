// A plan for people: as text, and as a graph. Pure functions over the plan's data.

import type { Plan } from './plan.ts';

type Vertex = Plan['vertices'][number];
type Edge = Plan['edges'][number];

/**
 * A plan as lines of text: for each vertex its name, its parallel instances and the operators that run fused in it, with their tags; below it where its
 * records go, and how.
 * @example
 * const words = job('words', (env) => {
 *   env.fromArray('in', ['a b']).flatMap((line) => line.split(' ')).tag('split').keyBy((word) => word).reduce('last', (_, word) => word).forEach('out', () => {});
 * });
 * assert.deepEqual(planText(words.plan({ parallelism: 2 })).split('\n').slice(1), [
 *   'in ×2: source in, flatMap «split»',
 *   '  └ hash → last',
 *   'last ×2: reduce last, forEach out',
 * ]);
 */
export function planText(plan: Plan): string {
  const lines = [`plan ${plan.hash}`];
  for (const vertex of plan.vertices) {
    lines.push(`${named(vertex)}: ${operators(vertex).join(', ')}`);
    const leaving = plan.edges.filter((edge) => edge.from === vertex.id);
    leaving.forEach((edge, i) => {
      lines.push(`  ${i + 1 === leaving.length ? '└' : '├'} ${way(edge)} → ${edge.to}`);
    });
  }
  return lines.join('\n');
}

/**
 * A plan as a graph in the language of Mermaid, which many tools draw: what `planText` says, with arrows.
 * @example
 * const copied = job('copied', (env) => {
 *   env.fromArray('in', [1, 2]).rebalance().forEach('out', () => {});
 * });
 * assert.equal(planGraph(copied.plan()), `flowchart LR
 *   v0["in ×1<br>source in"]
 *   v1["out ×1<br>forEach out"]
 *   v0 -->|"rebalance"| v1`);
 */
export function planGraph(plan: Plan): string {
  const at = new Map(plan.vertices.map((vertex, i) => [vertex.id, `v${i}`]));
  return [
    'flowchart LR',
    ...plan.vertices.map((vertex) => `  ${at.get(vertex.id)}["${[named(vertex), ...operators(vertex)].map(quoted).join('<br>')}"]`),
    ...plan.edges.map((edge) => `  ${at.get(edge.from)} -->|"${quoted(way(edge))}"| ${at.get(edge.to)}`),
  ].join('\n');
}

function named({ id, parallelism }: Vertex): string {
  return `${id} ×${parallelism}`;
}

function operators({ chain, tags }: Vertex): string[] {
  return chain.map((step, i) => {
    const tag = tags?.[i];
    return tag === undefined || tag === null ? step : `${step} «${tag.replace(/\s+/g, ' ')}»`;
  });
}

function way({ exchange, output, port }: Edge): string {
  return [output === undefined ? '' : `${output}: `, exchange, port === 'right' ? ', right input' : ''].join('');
}

/** Mermaid has entities of its own. */
function quoted(text: string): string {
  return text.replace(/[#"<>&`]/g, (character) => `#${character.charCodeAt(0)};`);
}
