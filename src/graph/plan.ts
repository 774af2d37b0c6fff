// From the logical graph to the plan: which operators run fused (a vertex), how vertices are linked, which of them must fail together (a region).
//
// What: pure functions over nodes. Nothing here runs a job.
//
// Invariants:
//  P1  A vertex is a tree of nodes: a head, and nodes that consume a node of the vertex by a forward input at the same parallelism.
//  P2  A source, a step that keeps state by key or event time in its own hands (`isHead`), and a node with several inputs are always heads.
//  P3  Building twice from the same program gives the same plan, with the same ids and hash.

import { createHash } from 'node:crypto';
import { MillraceError } from '../errors.ts';
import { checkEventTime } from './event-time-checks.ts';
import { INSTANCES_MAX } from './instances.ts';
import { type Exchange, type Input, isHead, MAIN, type Node, nameOf, type Port } from './node.ts';

export interface Vertex {
  readonly id: string;
  readonly index: number;
  readonly head: Node;
  /** Head first, then in the order of the program. */
  readonly nodes: readonly Node[];
  readonly parallelism: number;
  readonly inputs: readonly Edge[];
  readonly outputs: readonly Edge[];
  readonly region: number;
}

export interface Edge {
  readonly index: number;
  readonly from: Vertex;
  readonly to: Vertex;
  /** The node that emits, and which of its outputs. */
  readonly node: Node;
  readonly output: string;
  readonly exchange: Exchange;
  readonly key: Input['key'];
  readonly partition: Input['partition'];
  readonly port: Port;
  /**
   * Names the edge in snapshots of what was in flight on it. Undefined: checkpoints are always aligned there, since after a rescale its records could not be placed,
   * or there might be no such edge.
   */
  readonly address: string | undefined;
}

/** The graph as data, JSON-serialisable: vertices are what runs in one task, edges how records go between them. */
export interface Plan {
  /** Of the graph, the declared state and `version`: the same for the same program. */
  readonly hash: string;
  /** `tags`: one for each operator of `chain`, null where it has none. */
  readonly vertices: readonly {
    id: string;
    uids: readonly string[];
    chain: readonly string[];
    parallelism: number;
    tags?: readonly (string | null)[];
  }[];
  /** `output`: the side output that it begins at; `port`: the input of an operator that has two. */
  readonly edges: readonly { from: string; to: string; exchange: string; output?: string; port?: Port }[];
}

export interface Graph {
  readonly vertices: readonly Vertex[];
  readonly edges: readonly Edge[];
  readonly regions: number;
  readonly plan: Plan;
  /** What it was built with. */
  readonly defaults: GraphDefaults;
}

export interface GraphDefaults {
  readonly parallelism: number;
  readonly version?: string | undefined;
}

type Mutable<T> = { -readonly [N in keyof T]: T[N] };

export function buildGraph(nodes: readonly Node[], defaults: GraphDefaults): Graph {
  if (!Number.isInteger(defaults.parallelism) || defaults.parallelism < 1)
    throw new MillraceError('OPTION_INVALID', `parallelism ${defaults.parallelism}: the number of instances must be a whole number above 0.`);
  if (defaults.parallelism > INSTANCES_MAX)
    throw new MillraceError('OPTION_INVALID', `parallelism ${defaults.parallelism}: an operator has at most 32,768 instances.`);
  if (nodes.length === 0)
    throw new MillraceError('PLAN_EMPTY', 'The job has no source.', { todo: 'Add one with env.source(), env.fromArray() or env.fromAsync().' });
  checkEventTime(nodes);
  const parallelismOf = new Map<Node, number>();
  const vertexOf = new Map<Node, Mutable<Vertex> & { nodes: Node[]; inputs: Edge[]; outputs: Edge[] }>();
  const vertices: (Mutable<Vertex> & { nodes: Node[]; inputs: Edge[]; outputs: Edge[] })[] = [];
  const edges: Edge[] = [];

  for (const node of nodes) {
    const only = node.inputs.length === 1 ? node.inputs[0] : undefined;
    const inherited = only !== undefined && only.exchange === 'forward' ? parallelismOf.get(only.node) : undefined;
    const parallelism = node.parallelism ?? inherited ?? defaults.parallelism;
    parallelismOf.set(node, parallelism);
    const chained = only !== undefined && only.exchange === 'forward' && !isHead(node.step) && parallelism === inherited && node.chain !== 'never';
    if (chained) {
      const vertex = vertexOf.get(only.node)!;
      vertex.nodes.push(node);
      vertexOf.set(node, vertex);
      continue;
    }
    if (node.chain === 'always') {
      throw new MillraceError('PLAN_INVALID', `'${nameOf(node)}' is to be chained always, but its input needs an exchange.`, {
        uid: nameOf(node),
        todo: "Remove .chain('always') or give both the same parallelism.",
      });
    }
    const vertex = { id: '', index: vertices.length, head: node, nodes: [node], parallelism, inputs: [] as Edge[], outputs: [] as Edge[], region: 0 };
    vertices.push(vertex);
    vertexOf.set(node, vertex);
    for (const input of node.inputs) {
      const from = vertexOf.get(input.node)!;
      const exchange = input.exchange === 'forward' && from.parallelism !== parallelism ? 'rebalance' : input.exchange;
      const edge: Edge = {
        index: edges.length,
        from,
        to: vertex,
        node: input.node,
        output: input.output,
        exchange,
        key: input.key,
        partition: input.partition,
        port: input.port ?? 'left',
        address: addressOf(node, input),
      };
      edges.push(edge);
      from.outputs.push(edge);
      vertex.inputs.push(edge);
    }
  }

  const taken = new Set<string>();
  for (const vertex of vertices) {
    const named = vertex.nodes.find((n) => n.uid !== undefined);
    vertex.id = vertex.head.uid ?? (named !== undefined && !taken.has(named.uid!) ? named.uid! : nameOf(vertex.head));
    taken.add(vertex.id);
  }
  const regions = markRegions(vertices, edges);
  return { vertices, edges, regions, plan: describe(vertices, edges, defaults.version), defaults };
}

/**
 * Records with a key find their place by it, whoever sent them. Those of an exchange that the program asks for are dealt out anew; a forward edge is an exchange
 * only where two parallelisms differ, and each instance of a broadcast has its own copy.
 */
function addressOf(to: Node, { exchange, node, output, port = 'left' }: Input): string | undefined {
  const from = `from ${nameOf(node)}${output === MAIN ? '' : `/${output.replace('\u0000', '')}`}`;
  // A head without a uid is known by its number only: who sends to it must be the same, too.
  if (exchange === 'hash') return to.uid === undefined ? `${nameOf(to)} ${port} by key ${from}` : `${to.uid} ${port} by key`;
  return exchange === 'rebalance' || exchange === 'shuffle' || exchange === 'custom' ? `${nameOf(to)} ${port} ${exchange} ${from}` : undefined;
}

/** Connected components, numbered in the order of their first vertex. */
function markRegions(vertices: readonly Mutable<Vertex>[], edges: readonly Edge[]): number {
  const parent = vertices.map((_, i) => i);
  const root = (i: number): number => {
    let r = i;
    while (parent[r] !== r) r = parent[r]!;
    return r;
  };
  for (const edge of edges) {
    const [a, b] = [root(edge.from.index), root(edge.to.index)];
    if (a !== b) parent[Math.max(a, b)] = Math.min(a, b);
  }
  const numbers = new Map<number, number>();
  for (const vertex of vertices) {
    const r = root(vertex.index);
    if (!numbers.has(r)) numbers.set(r, numbers.size);
    vertex.region = numbers.get(r)!;
  }
  return numbers.size;
}

function describe(vertices: readonly Vertex[], edges: readonly Edge[], version: string | undefined): Plan {
  const shown = vertices.map((v) => ({
    id: v.id,
    uids: v.nodes.flatMap((n) => (n.uid === undefined ? [] : [n.uid])),
    chain: v.nodes.map((n) => (n.uid === undefined ? n.step.kind : `${n.step.kind} ${n.uid}`)),
    parallelism: v.parallelism,
  }));
  const links = edges.map((e) => ({
    from: e.from.id,
    to: e.to.id,
    exchange: e.exchange as string,
    ...(e.output === MAIN ? {} : { output: e.output.replace('\u0000', '') }),
  }));
  const states = vertices.flatMap((v) => v.nodes.map((n) => statesOf(n)));
  const hash = createHash('sha256')
    .update(JSON.stringify([shown, links, states, version ?? '']))
    .digest('hex')
    .slice(0, 16);
  // What is for people only is no part of the hash.
  return {
    hash,
    vertices: shown.map((v, i) => ({ ...v, tags: vertices[i]!.nodes.map((n) => n.tag ?? null) })),
    edges: links.map((l, i) => (edges[i]!.to.inputs.some((e) => e.port === 'right') ? { ...l, port: edges[i]!.port } : l)),
  };
}

/** The names of the state that the program declares. */
function statesOf({ step }: Node): readonly unknown[] {
  if (step.kind === 'process') return Object.keys(step.spec.state);
  if (step.kind !== 'window') return [];
  const { trigger, makes } = step.spec;
  const own = makes.kind === 'process' ? [Object.keys(makes.state), Object.keys(makes.windowState)] : [];
  const ofTrigger = Object.keys(trigger.state ?? {});
  return ofTrigger.length === 0 && own.flat().length === 0 ? [] : [ofTrigger, ...own];
}
