// The lives of an actor and of a supervised child: XState statecharts, declared once as data.
//
// What: the tables below are the only place that says which move is allowed. The runtime moves by looking them up (`move`),
// the machines are made of the same tables for XState's tools, and the drawings in docs/actors.md are generated from the machines.
// Nothing here stands on the path of a message.

import { createMachine } from 'xstate';

const cellStates = {
  starting: {
    description: 'the definition runs',
    on: { started: 'running', failed: 'stopping' },
  },
  running: {
    description: 'messages are served',
    on: { ended: 'stopping' },
  },
  stopping: {
    description: 'children stop, last started first, then its own stopping runs',
    on: { down: 'restarting', retired: 'stopped' },
  },
  restarting: {
    description: 'between two incarnations: messages are held while the parent decides, waits, starts it again',
    on: { start: 'starting', retired: 'stopped' },
  },
  stopped: {
    description: 'ended for good: watchers are told, messages are dead letters',
    type: 'final',
    on: {},
  },
} as const;

const childStates = {
  starting: {
    description: 'its actor is being started',
    on: { started: 'running', failed: 'restarting', refused: 'stopped' },
  },
  running: {
    description: 'its actor runs',
    on: { failed: 'restarting', finished: 'stopped', stop: 'stopping' },
  },
  stopping: {
    description: 'asked to stop: by terminateChild, or for a restart of its group',
    on: { stopped: 'stopped', held: 'restarting' },
  },
  restarting: {
    description: 'a try is due, at once or after the backoff',
    on: { start: 'starting', stop: 'stopping' },
  },
  stopped: {
    description: 'the spec is kept, no actor runs',
    on: { start: 'starting', delete: 'deleted' },
  },
  deleted: {
    description: 'the spec is gone',
    type: 'final',
    on: {},
  },
} as const;

export type CellState = keyof typeof cellStates;
export type ChildState = keyof typeof childStates;
type EventOf<T> = { [S in keyof T]: T[S] extends { on: infer O } ? keyof O : never }[keyof T];
export type CellEvent = EventOf<typeof cellStates>;
export type ChildEvent = EventOf<typeof childStates>;

/**
 * The life of an actor, over all its incarnations, as an XState machine.
 * @example
 * assert.deepEqual(Object.keys(cellLifecycle.states), ['starting', 'running', 'stopping', 'restarting', 'stopped']);
 */
export const cellLifecycle = createMachine({ id: 'actor', initial: 'starting', states: cellStates });

/**
 * The life of a child as its supervisor knows it, a spec with or without an actor, as an XState machine.
 * @example
 * assert.deepEqual(Object.keys(childLifecycle.states), ['starting', 'running', 'stopping', 'restarting', 'stopped', 'deleted']);
 */
export const childLifecycle = createMachine({ id: 'child', initial: 'starting', states: childStates });

export function moveCell(from: CellState, event: CellEvent): CellState {
  return move(cellStates, from, event) as CellState;
}

export function moveChild(from: ChildState, event: ChildEvent): ChildState {
  return move(childStates, from, event) as ChildState;
}

function move(states: Record<string, { readonly on: Readonly<Record<string, string>> }>, from: string, event: string): string {
  const to = states[from]?.on[event];
  if (to === undefined) throw new Error(`Broken lifecycle: ${event} is no move from ${from}. This is a bug of the runtime.`);
  return to;
}
