// What `system.trace(path, fn)` is told of one actor.

import type { ActorRef } from './actor-ref.ts';
import type { ExitReason } from './exit-reason.ts';
import type { CellState } from './lifecycle.ts';

/** A message or the end of a watched actor, as it is handled, or a move of its life. */
export type TraceEvent =
  | { readonly type: 'message'; readonly path: string; readonly message: unknown }
  | { readonly type: 'terminated'; readonly path: string; readonly ref: ActorRef<never>; readonly reason: ExitReason }
  | { readonly type: 'state'; readonly path: string; readonly state: CellState; readonly reason: ExitReason | undefined };
