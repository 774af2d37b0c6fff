// Barrier alignment of one task (semantics 1 and 2): a pure function from what arrived to what must be done.
//
// A barrier *enters* a channel's queue when the sender puts it there, and is *delivered* when the task takes it out. An aligned checkpoint waits until all
// have delivered. An unaligned one waits for nothing: what stands in the queues is recorded, and a channel's recording stops when its barrier enters.
//
// Invariants:
//  A1  Aligned (exactly-once): a channel that delivered barrier n is blocked until all open channels delivered n; then the snapshot, then all are unblocked.
//  A2  A smaller id, or the current one when none is pending, is dropped. A larger id while one is pending aborts the pending one first.
//  A3  A channel that ends counts as aligned from then on. A barrier that comes by mail, since nobody upstream runs, stands behind the ends of all channels.
//  A4  A cancel marker for an id not yet seen, or for the pending one, aborts it; barriers of that id that come later start nothing.
//  A5  At-least-once mode counts and never blocks.
//  A6  Once a barrier is hurried, the whole task waits for `forced` channels only: records of those could not be placed after a rescale.
//  A7  What is recorded belongs to one id. Each channel is recorded from the snapshot to its own barrier or its end, whichever enters first; a larger id that
//      enters or is recorded, or an abort, drops the recording. Where a larger one has entered before, nothing is: its own barriers may be behind us.

export interface Alignment {
  readonly current: number;
  readonly pending: boolean;
  /** Have delivered the pending barrier. */
  readonly aligned: ReadonlySet<number>;
  /** The pending one waits for forced channels only. */
  readonly hurried: boolean;
  /** The newest id that has entered, and where. */
  readonly entered: { readonly id: number; readonly channels: ReadonlySet<number> };
  /** Channels into which the end has entered. */
  readonly ending: ReadonlySet<number>;
  /** Channels that are still recorded. */
  readonly recording: { readonly id: number; readonly channels: ReadonlySet<number> } | undefined;
}
export type Arrival =
  | { readonly kind: 'barrier'; readonly channel: number; readonly id: number }
  | { readonly kind: 'cancel'; readonly id: number }
  | { readonly kind: 'end'; readonly channel: number }
  /** By mail. */
  | { readonly kind: 'trigger'; readonly id: number }
  /** It is to be taken without waiting. */
  | { readonly kind: 'hurry'; readonly id: number }
  /** The same three, when they enter a queue. */
  | { readonly kind: 'barrier entered'; readonly channel: number; readonly id: number }
  | { readonly kind: 'cancel entered'; readonly id: number }
  | { readonly kind: 'end entered'; readonly channel: number };
export type AlignmentAction =
  | { readonly kind: 'block'; readonly channel: number }
  | { readonly kind: 'unblock' }
  | { readonly kind: 'abort'; readonly id: number }
  | { readonly kind: 'snapshot'; readonly id: number }
  /** The snapshot, with what stands in these channels; in those that `until` holds, up to the barrier. */
  | { readonly kind: 'record'; readonly id: number; readonly channels: ReadonlySet<number>; readonly until: ReadonlySet<number> }
  /** That channel's recording is whole. */
  | { readonly kind: 'stop'; readonly channel: number }
  | { readonly kind: 'recorded'; readonly id: number }
  | { readonly kind: 'drop'; readonly id: number };

const NONE: ReadonlySet<number> = new Set();

export const UNALIGNED: Alignment = {
  current: 0,
  pending: false,
  aligned: NONE,
  hurried: false,
  entered: { id: 0, channels: NONE },
  ending: NONE,
  recording: undefined,
};

interface Step {
  readonly state: Alignment;
  readonly actions: AlignmentAction[];
}

/** `open` are the channels that have not ended (for `end`: without the one that ends); `forced` those that cannot be recorded. */
export function align(state: Alignment, arrival: Arrival, open: ReadonlySet<number>, blocking = true, forced: ReadonlySet<number> = NONE): Step {
  switch (arrival.kind) {
    case 'barrier': {
      if (passed(state, arrival.id)) return { state, actions: [] };
      const { state: begun, actions } = begin(state, arrival.id);
      if (blocking) actions.push({ kind: 'block', channel: arrival.channel });
      return complete({ ...begun, aligned: new Set([...begun.aligned, arrival.channel]) }, open, forced, actions);
    }
    case 'trigger':
    case 'hurry': {
      if (passed(state, arrival.id)) return { state, actions: [] };
      const { state: begun, actions } = begin(state, arrival.id);
      return complete(arrival.kind === 'hurry' ? { ...begun, hurried: true } : begun, open, forced, actions);
    }
    case 'cancel': {
      if (passed(state, arrival.id)) return { state, actions: [] };
      const actions: AlignmentAction[] = state.pending ? [{ kind: 'unblock' }] : [];
      actions.push({ kind: 'abort', id: arrival.id });
      return { state: { ...state, current: arrival.id, pending: false, aligned: NONE, hurried: false }, actions };
    }
    case 'end':
      return state.pending ? complete(state, open, forced, []) : { state, actions: [] };
    case 'barrier entered': {
      const { channel, id } = arrival;
      const { state: kept, actions } = state.recording !== undefined && id > state.recording.id ? drop(state) : { state, actions: [] };
      if (kept.recording?.id === id) return stop(kept, channel, actions);
      if (id < kept.entered.id) return { state: kept, actions };
      const channels = new Set(id === kept.entered.id ? kept.entered.channels : NONE).add(channel);
      return { state: { ...kept, entered: { id, channels } }, actions };
    }
    case 'cancel entered':
      return state.recording !== undefined && state.recording.id <= arrival.id ? drop(state) : { state, actions: [] };
    case 'end entered': {
      const ending = new Set(state.ending).add(arrival.channel);
      return stop({ ...state, ending }, arrival.channel, []);
    }
  }
}

function passed({ current, pending }: Alignment, id: number): boolean {
  return id < current || (id === current && !pending);
}

/** A2. */
function begin(state: Alignment, id: number): Step {
  if (id === state.current) return { state, actions: [] };
  const actions: AlignmentAction[] = state.pending ? [{ kind: 'abort', id: state.current }, { kind: 'unblock' }] : [];
  return { state: { ...state, current: id, pending: true, aligned: NONE, hurried: false }, actions };
}

function complete(state: Alignment, open: ReadonlySet<number>, forced: ReadonlySet<number>, actions: AlignmentAction[]): Step {
  const { current: id, aligned, hurried, entered, ending } = state;
  const missing = new Set([...open].filter((channel) => !aligned.has(channel)));
  for (const channel of missing) if (!hurried || forced.has(channel)) return { state, actions };
  const taken = { ...state, pending: false, aligned: NONE, hurried: false };
  if (missing.size === 0) {
    actions.push({ kind: 'snapshot', id }, { kind: 'unblock' });
    return { state: taken, actions };
  }
  if (entered.id > id) {
    actions.push({ kind: 'abort', id }, { kind: 'unblock' });
    return { state: taken, actions };
  }
  if (state.recording !== undefined) actions.push({ kind: 'drop', id: state.recording.id });
  const until = new Set(entered.id === id ? [...missing].filter((channel) => entered.channels.has(channel)) : []);
  actions.push({ kind: 'record', id, channels: missing, until }, { kind: 'unblock' });
  const channels = new Set([...missing].filter((channel) => !until.has(channel) && !ending.has(channel)));
  if (channels.size === 0) actions.push({ kind: 'recorded', id });
  return { state: { ...taken, recording: channels.size === 0 ? undefined : { id, channels } }, actions };
}

function stop(state: Alignment, channel: number, actions: AlignmentAction[]): Step {
  const { recording } = state;
  if (recording?.channels.has(channel) !== true) return { state, actions };
  const channels = new Set(recording.channels);
  channels.delete(channel);
  actions.push({ kind: 'stop', channel });
  if (channels.size > 0) return { state: { ...state, recording: { id: recording.id, channels } }, actions };
  actions.push({ kind: 'recorded', id: recording.id });
  return { state: { ...state, recording: undefined }, actions };
}

function drop(state: Alignment): Step {
  return { state: { ...state, recording: undefined }, actions: [{ kind: 'drop', id: state.recording!.id }] };
}
