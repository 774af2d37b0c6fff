// Barrier alignment of one task (semantics 1): a pure function from what arrived to what must be done.
//
// Invariants:
//  A1  Aligned (exactly-once): a channel that delivered barrier n is blocked until all open channels delivered n; then the snapshot, then all are unblocked.
//  A2  A smaller id, or the current one when none is pending, is dropped. A larger id while one is pending aborts the pending one first.
//  A3  A channel that ends counts as aligned from then on.
//  A4  A cancel marker for an id not yet seen, or for the pending one, aborts it; barriers of that id that come later start nothing.
//  A5  At-least-once mode counts and never blocks.

export interface Alignment {
  readonly current: number;
  readonly pending: boolean;
  readonly aligned: ReadonlySet<number>;
}
export type Arrival =
  | { readonly kind: 'barrier'; readonly channel: number; readonly id: number }
  | { readonly kind: 'cancel'; readonly id: number }
  | { readonly kind: 'end'; readonly channel: number };
export type AlignmentAction =
  | { readonly kind: 'block'; readonly channel: number }
  | { readonly kind: 'unblock' }
  | { readonly kind: 'abort'; readonly id: number }
  | { readonly kind: 'snapshot'; readonly id: number };

export const UNALIGNED: Alignment = { current: 0, pending: false, aligned: new Set() };

/** `open` are the channels that have not ended (for `end`: without the one that ends). */
export function align(state: Alignment, arrival: Arrival, open: ReadonlySet<number>, blocking = true): { state: Alignment; actions: AlignmentAction[] } {
  const actions: AlignmentAction[] = [];
  switch (arrival.kind) {
    case 'barrier': {
      if (arrival.id < state.current || (arrival.id === state.current && !state.pending)) return { state, actions };
      let aligned = new Set(state.aligned);
      if (arrival.id > state.current) {
        if (state.pending) actions.push({ kind: 'abort', id: state.current }, { kind: 'unblock' });
        aligned = new Set();
      }
      aligned.add(arrival.channel);
      if (blocking) actions.push({ kind: 'block', channel: arrival.channel });
      return complete({ current: arrival.id, pending: true, aligned }, open, actions);
    }
    case 'cancel': {
      if (arrival.id < state.current || (arrival.id === state.current && !state.pending)) return { state, actions };
      if (state.pending) actions.push({ kind: 'unblock' });
      actions.push({ kind: 'abort', id: arrival.id });
      return { state: { current: arrival.id, pending: false, aligned: new Set() }, actions };
    }
    case 'end':
      return state.pending ? complete(state, open, actions) : { state, actions };
  }
}

function complete(state: Alignment, open: ReadonlySet<number>, actions: AlignmentAction[]): { state: Alignment; actions: AlignmentAction[] } {
  for (const channel of open) if (!state.aligned.has(channel)) return { state, actions };
  actions.push({ kind: 'snapshot', id: state.current }, { kind: 'unblock' });
  return { state: { current: state.current, pending: false, aligned: new Set() }, actions };
}
