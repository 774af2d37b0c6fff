// The chain of a vertex, generated: neighbouring operators fused into one loop with a source text of its own, so that V8 sees one program's types.
//
// What: from the tree of nodes to JavaScript text, compiled once a task. User functions, operators, outputs and sinks are parameters of that text; it
// contains no value of the user's.
//
// The text of `source → map 1 → filter 2 → keyed edge` is, in the plain mode:
//
//   for (; i < to; i++) {
//     const v = values[i]; const t = timestamp0(v, assigned); if (t > newest && t <= LATEST) newest = t;
//     at = 1; const v1 = f1(v);
//     at = 2; if (f2(v1) === true) { add0(v1, t); }
//     if (control.full) { i++; break; }
//   }
//
// Invariants:
//  N1  `at` names the node whose code runs, so that an error names its operator.
//  N2  Plain mode (all policies `restart`): an error ends the loop and the task. Unit mode: each record is a unit; `units.failed` decides.
//  N3  The loop stops between units only, and returns the index of the next record.

import type { Key } from '../graph/job.ts';
import { DEAD_LETTERS, isHead, MAIN, type Node, type Port } from '../graph/node.ts';
import type { Vertex } from '../graph/plan.ts';
import { compile } from './fresh.ts';
import type { Emit, Operator } from './operator.ts';
import type { Control, Output } from './output.ts';

export interface Columns {
  readonly values: readonly unknown[];
  /** Undefined: no record has one. */
  readonly timestamps: Float64Array | readonly number[] | undefined;
  readonly keys: readonly Key[];
  readonly hashes: Int32Array;
}

/** Keeps a record's effects together; see unit.ts. */
export interface Units {
  begin(): void;
  commit(): void;
  /** Decides what becomes of a unit that failed: returns after undoing it (`skip`), or throws. */
  failed(error: unknown, at: number, record: unknown, key: Key | undefined, timestamp: number): void;
}

export interface SplitTimes {
  maxTimestamp: number;
  readonly perRecord: boolean;
  onRecord(value: unknown, timestamp: number): void;
}

export interface Chain {
  /** Processes records from … to − 1 and returns the index of the first that was not. */
  run(columns: Columns, from: number, to: number, split: SplitTimes | undefined): number;
  /** The same for records of the right input. */
  runRight(columns: Columns, from: number, to: number): number;
  /** Index into the vertex's nodes of the code that ran last. */
  readonly at: () => number;
  /** Index of the record that ran last. */
  readonly index: () => number;
  setAt(at: number): void;
}

export interface ChainParts {
  readonly vertex: Vertex;
  /** Outgoing edges in the order of `vertex.outputs`. */
  readonly outputs: readonly Output[];
  /** Where the records of a sink node go. */
  readonly sinks: ReadonlyMap<Node, Emit>;
  /** Builds the operator of a node, given its outputs. */
  readonly operator: (node: Node, at: number, output: (name: string) => Emit | undefined) => Operator;
  readonly control: Control;
  /** Undefined: plain mode. */
  readonly units: Units | undefined;
  readonly asyncHandler: (result: unknown) => unknown;
}

/** Steps that are objects; the others are text. */
const isOperator = ({ step }: Node): boolean => isHead(step) || step.kind === 'process';

export function buildChain(parts: ChainParts): { chain: Chain; operators: Map<Node, Operator>; outputOf(node: Node, name: string): Emit | undefined } {
  const { vertex } = parts;
  const parameters: string[] = [];
  const values: unknown[] = [];
  const bind = (name: string, value: unknown): string => {
    parameters.push(name);
    values.push(value);
    return name;
  };
  // Beyond it there is no time that a date could have: such a record is refused by whoever needs its time, and moves none.
  bind('LATEST', 8.64e15);
  bind('control', parts.control);
  bind('units', parts.units);
  bind('settle', parts.asyncHandler);
  const at = new Map<Node, number>(vertex.nodes.map((node, i) => [node, i]));
  for (const [i, output] of parts.outputs.entries()) bind(`add${i}`, output.add);

  const emit = (node: Node, output: string, v: string, t: string): string => {
    const lines: string[] = [];
    for (const consumer of vertex.nodes) {
      for (const input of consumer.inputs) if (consumer !== vertex.head && input.node === node && input.output === output) lines.push(step(consumer, v, t));
    }
    // What fused consumers have left in `at` is not who asks for a key or a partition (N1).
    let named = lines.length === 0 && (node.step.kind !== 'source' || vertex.nodes.length === 1);
    vertex.outputs.forEach((edge, i) => {
      if (edge.node !== node || edge.output !== output) return;
      if (!named && (edge.key !== undefined || edge.partition !== undefined)) {
        lines.push(`at = ${at.get(node)};`);
        named = true;
      }
      lines.push(`add${i}(${v}, ${t});`);
    });
    return lines.join('\n');
  };
  const step = (node: Node, v: string, t: string, method: 'process' | 'processRight' = 'process', keyed = false): string => {
    const n = at.get(node)!;
    switch (node.step.kind) {
      case 'map':
        return `at = ${n}; const v${n} = ${bind(`f${n}`, node.step.fn)}(${v});\n${emit(node, MAIN, `v${n}`, t)}`;
      case 'filter': {
        const f = bind(`f${n}`, node.step.fn);
        return `at = ${n}; const p${n} = ${f}(${v}); if (p${n} === true || (p${n} !== false && settle(p${n}))) {\n${emit(node, MAIN, v, t)}\n}`;
      }
      case 'flatMap':
        return `at = ${n}; const r${n} = ${bind(`f${n}`, node.step.fn)}(${v}); if (typeof r${n}?.then === 'function') settle(r${n});\nfor (const v${n} of r${n}) {\n${emit(node, MAIN, `v${n}`, t)}\nat = ${n};\n}`;
      case 'split': {
        const tests = node.step.branches.map(({ name, fn }, b) => {
          const p = `p${n}_${b}`;
          const body = emit(node, name, v, t);
          return `at = ${n}; const ${p} = ${bind(`f${n}_${b}`, fn)}(${v}); if (${p} === true || (${p} !== false && settle(${p}))) {\n${body}\n} else {`;
        });
        return `${tests.join('\n')}${' }'.repeat(tests.length)}`;
      }
      case 'sink':
      case 'forEach':
        return `at = ${n}; ${bind(`sink${n}`, parts.sinks.get(node))}(${v}, ${t});`;
      case 'source':
        return emit(node, MAIN, v, t);
      default:
        return `at = ${n}; op${n}.${method}(${v}, ${t}, ${keyed ? 'keys[i], hashes[i]' : 'undefined, 0'});`;
    }
  };

  const { head } = vertex;
  const source = head.step.kind === 'source' ? head.step : undefined;
  const operatorNodes = vertex.nodes.filter(isOperator);
  const emitters: string[] = [];
  const emitterNames = new Map<string, string>();
  vertex.nodes.forEach((node, n) => {
    // Only an operator emits by a call; the outputs of other steps stand in the text itself, and what they would bind must be bound once (the branches of a split).
    const names = new Set<string>(isOperator(node) ? [MAIN, DEAD_LETTERS] : [DEAD_LETTERS]);
    if (isOperator(node)) {
      for (const edge of vertex.outputs) if (edge.node === node) names.add(edge.output);
      for (const consumer of vertex.nodes) for (const input of consumer.inputs) if (consumer !== head && input.node === node) names.add(input.output);
    }
    for (const name of names) {
      const body = emit(node, name, 'v', 't');
      if (body === '' && name !== MAIN) continue;
      const fn = `emit${emitters.length}`;
      emitters.push(`const ${fn} = (v, t) => {\n${body}\n${isOperator(node) ? `at = ${n};` : ''}\n};`);
      emitterNames.set(`${n}/${name}`, fn);
    }
  });

  const stamp = source?.strategy?.timestamp;
  if (stamp !== undefined) bind('timestampOf', stamp);
  const assigned = source === undefined ? 'timestamps[i]' : 'timestamps === undefined ? NaN : timestamps[i]';
  const timed = source?.strategy !== undefined;
  const byKey = (port: Port): boolean => vertex.inputs.some((e) => e.exchange === 'hash' && e.port === port);
  const first = [
    stamp === undefined ? `const t = ${assigned};` : `at = 0; const t = timestampOf(v, ${assigned});`,
    timed ? 'if (t > newest) newest = t; if (perRecord) { at = 0; split.onRecord(v, t); }' : '',
    step(head, 'v', 't', 'process', byKey('left')),
  ].join('\n');
  const loop = (record: string): string =>
    parts.units === undefined
      ? `for (; i < to; i++) {\nconst v = values[i];\n${record}\nif (control.full) { i++; break; }\n}`
      : `for (; i < to; i++) {
units.begin();
try {
const v = values[i];
${record}
} catch (error) {
units.failed(error, at, values[i], keys === undefined ? undefined : keys[i], timestamps === undefined ? NaN : timestamps[i]);
continue;
}
units.commit();
if (control.full) { i++; break; }
}`;
  const two = vertex.inputs.some((e) => e.port === 'right');
  const body = `
let at = 0;
let last = 0;
${operatorNodes.map((node) => `let op${at.get(node)};`).join(' ')}
${emitters.join('\n')}
function run(columns, from, to, split) {
const { values, timestamps, keys, hashes } = columns;
${isOperator(head) && byKey('left') && !two ? `if (op${at.get(head)}.ahead !== undefined) op${at.get(head)}.ahead(hashes, from, to);` : ''}
${timed ? 'let newest = split.maxTimestamp; const perRecord = split.perRecord;' : ''}
let i = from;
try {
${loop(first)}
} finally {
last = i;
${timed ? 'split.maxTimestamp = newest;' : ''}
}
return i;
}
function runRight(columns, from, to) {
${
  two
    ? `const { values, timestamps, keys, hashes } = columns;
let i = from;
try {
${loop(`const t = timestamps[i];\n${step(head, 'v', 't', 'processRight', byKey('right'))}`)}
} finally {
last = i;
}
return i;`
    : ''
}
}
return {
chain: { run, runRight, at: () => at, index: () => last, setAt: (n) => { at = n; } },
emitters: { ${[...emitterNames].map(([key, fn]) => `${JSON.stringify(key)}: ${fn}`).join(', ')} },
bind(ops) { ${operatorNodes.map((node, k) => `op${at.get(node)} = ops[${k}];`).join(' ')} },
};`;
  const built = compile<{ chain: Chain; emitters: Record<string, Emit>; bind(ops: Operator[]): void }>(parameters, body, `${vertex.id}`)(...values);
  const outputOf = (node: Node, name: string): Emit | undefined => built.emitters[`${at.get(node)}/${name}`];
  const operators = new Map<Node, Operator>();
  for (const node of operatorNodes)
    operators.set(
      node,
      parts.operator(node, at.get(node)!, (name) => outputOf(node, name)),
    );
  built.bind([...operators.values()]);
  return { chain: built.chain, operators, outputOf };
}
