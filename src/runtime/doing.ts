// The name by which a task is asked what it does, by whoever sees it among the frames of a thread that hangs (cluster/hanging.ts).

export const DOING: unique symbol = Symbol.for('millrace.doing');

export interface Doing {
  readonly task: string;
  /** The uid of the operator whose code runs. */
  readonly operator: string;
}
