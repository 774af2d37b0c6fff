// The tree of a system as plain data: what `tree()` and `status()` answer, for programs, command lines and dashboards.

/** An actor as `tree()` and `status()` show it; JSON-serialisable. */
export interface TreeNode {
  name: string;
  path: string;
  kind: 'system' | 'supervisor' | 'actor' | 'machine';
  state: 'starting' | 'running' | 'restarting' | 'stopping' | 'stopped';
  /** How often it was started again. */
  restarts: number;
  /** Messages that wait. */
  mailbox: number;
  /** What the actor says of itself: see `ActorHandlers.inspect`. */
  metrics?: Record<string, number | null>;
  snapshot?: unknown;
  children: TreeNode[];
}

/** What an actor may say of itself (`ActorHandlers.inspect`), merged into its node. */
export interface Inspection {
  metrics?: Record<string, number | null>;
  snapshot?: unknown;
  restarts?: number;
  state?: TreeNode['state'];
}

export function withInspection(node: TreeNode, inspection: Inspection): TreeNode {
  if (inspection.metrics !== undefined) node.metrics = inspection.metrics;
  if (inspection.restarts !== undefined) node.restarts = inspection.restarts;
  if (inspection.state !== undefined) node.state = inspection.state;
  if (inspection.snapshot !== undefined) node.snapshot = jsonSafe(inspection.snapshot);
  return node;
}

/** A snapshot is whatever user code keeps; a tree must serialise. What JSON takes stays as it is, the rest is written so that it can. */
function jsonSafe(value: unknown): unknown {
  try {
    JSON.stringify(value);
    return value;
  } catch {
    const above: unknown[] = [];
    const text = JSON.stringify(value, function (this: unknown, _key, item: unknown) {
      if (typeof item === 'bigint') return String(item);
      if (typeof item !== 'object' || item === null) return item;
      while (above.length > 0 && above.at(-1) !== this) above.pop();
      if (above.includes(item)) return '[cycle]';
      above.push(item);
      return item;
    });
    return JSON.parse(text);
  }
}
