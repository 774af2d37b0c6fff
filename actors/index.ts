// `millrace/actors`: an actor runtime with OTP's supervision, usable without streams.

export type { ActorRef } from './actor-ref.ts';
export type { ActorContext, ActorHandlers, Behaviour, SpawnOptions } from './behaviour.ts';
export type { ChildSpec, SupervisorOptions } from './child-spec.ts';
export type { Clock } from './clock.ts';
export type { DeadLetter, DeadLetterReport } from './dead-letters.ts';
export { defineActor } from './definition.ts';
export { ACTOR_ERROR_CODES, ActorError, type ActorErrorCode } from './errors.ts';
export type { ExitReason } from './exit-reason.ts';
export { cellLifecycle, childLifecycle } from './lifecycle.ts';
export type { FailurePhase, Log, ParentLog } from './log.ts';
export { fromMachine } from './machine.ts';
export { drawStatechart } from './statechart-drawing.ts';
export {
  childOf,
  countChildren,
  deleteChild,
  restartChild,
  type Supervising,
  type Supervisor,
  startChild,
  supervisor,
  terminateChild,
  whichChildren,
} from './supervisor.ts';
export type { Child, ChildCount } from './supervisor-rules.ts';
export { type ActorSystem, createSystem, type SystemOptions } from './system.ts';
export type { TraceEvent } from './trace.ts';
export type { Inspection, TreeNode } from './tree.ts';
