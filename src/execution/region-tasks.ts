// Which tasks a region has, and which of them send to which. Pure.

import type { Edge, Graph, Vertex } from '../graph/plan.ts';

export function nameOfTask(vertex: Vertex, subtask: number): string {
  return `${vertex.id}-${subtask}`;
}

/** Which instances of the next vertex an instance sends to. */
export function targets({ exchange, from, to }: Edge, sender: number): number[] {
  const all = Array.from({ length: to.parallelism }, (_, i) => i);
  if (exchange === 'forward') return [sender];
  if (exchange !== 'rescale') return all;
  // Each sender has a share of the receivers, or several senders share one.
  if (from.parallelism >= to.parallelism) return [Math.floor((sender * to.parallelism) / from.parallelism)];
  return all.filter((receiver) => Math.floor((receiver * from.parallelism) / to.parallelism) === sender);
}

export interface PlannedTask {
  readonly name: string;
  readonly vertex: Vertex;
  readonly subtask: number;
  /** Names of the tasks that send to it. */
  readonly upstream: readonly string[];
}

export function tasksOfRegion({ vertices }: Graph, region: number): PlannedTask[] {
  return vertices
    .filter((vertex) => vertex.region === region)
    .flatMap((vertex) =>
      Array.from({ length: vertex.parallelism }, (_, subtask) => ({
        name: nameOfTask(vertex, subtask),
        vertex,
        subtask,
        upstream: vertex.inputs.flatMap((edge) =>
          Array.from({ length: edge.from.parallelism }, (_, from) => from)
            .filter((from) => targets(edge, from).includes(subtask))
            .map((from) => nameOfTask(edge.from, from)),
        ),
      })),
    );
}
