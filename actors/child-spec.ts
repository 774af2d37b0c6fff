// Child specs and a supervisor's flags: data, checked before anything runs.

import type { Behaviour } from './behaviour.ts';
import { Definition, type DefinitionKind } from './definition.ts';
import { ActorError } from './errors.ts';
import { type Backoff, DEFAULT_INTENSITY, type Intensity, type RestartType, type Strategy } from './restart-policy.ts';
import { nameFault, restartFault, type Shutdown, shutdownFault } from './spawn-options.ts';

/** What a supervisor starts, and how it keeps it. */
export interface ChildSpec<M = never> {
  /** Unique among the children of a supervisor; the name of its actor. */
  id: string;
  start: Behaviour<M>;
  /** `permanent`, the default: always; `transient`: unless it ended with normal or shutdown; `temporary`: never. */
  restart?: 'permanent' | 'transient' | 'temporary';
  /** Milliseconds its whole end may take, 5,000 by default, for a supervisor `infinity`; `brutal`: killed without being asked. */
  shutdown?: number | 'infinity' | 'brutal';
  /** Its end, by itself and without a restart, may end the supervisor: see `autoShutdown`. False by default. */
  significant?: boolean;
}

export type AutoShutdown = 'never' | 'any-significant' | 'all-significant';

/** Children, and the rules by which they are restarted. */
export interface SupervisorOptions {
  /** Who is restarted when a child fails: it alone, all of them, or it and those after it. */
  strategy: 'one-for-one' | 'one-for-all' | 'rest-for-one';
  /** At most `max` restarts `within` so many milliseconds, else the supervisor ends; 1 in 5,000 by default. */
  intensity?: { max: number; within: number };
  /** Waits before the n-th restart in a row: `min(max, initial × factor^(n − 1))` ms, spread by the jitter; factor 2, jitter 0.1; no wait by default. */
  backoff?: { initial: number; max: number; factor?: number; jitter?: number };
  /** Whether the supervisor ends when one, or the last, of its significant children has ended by itself; `never` by default. */
  autoShutdown?: 'never' | 'any-significant' | 'all-significant';
  /** Started in this order, stopped in reverse. */
  children: readonly ChildSpec[];
}

export interface CheckedSpec {
  readonly id: string;
  readonly definition: Definition;
  readonly restart: RestartType;
  readonly shutdown: Shutdown | undefined;
  readonly significant: boolean;
}

export interface CheckedFlags {
  readonly strategy: Strategy;
  readonly intensity: Intensity;
  readonly backoff: Backoff | undefined;
  readonly autoShutdown: AutoShutdown;
  readonly specs: readonly CheckedSpec[];
}

const STRATEGIES: readonly unknown[] = ['one-for-one', 'one-for-all', 'rest-for-one'];
const AUTO_SHUTDOWNS: readonly unknown[] = ['never', 'any-significant', 'all-significant'];

export function checkFlags(options: SupervisorOptions): CheckedFlags {
  if (typeof options !== 'object' || options === null) throw invalid('options are an object with strategy and children');
  const { strategy, intensity = DEFAULT_INTENSITY, backoff, autoShutdown = 'never', children } = options;
  if (!STRATEGIES.includes(strategy)) throw invalid(`strategy must be one-for-one, one-for-all or rest-for-one, got ${String(strategy)}`);
  if (!AUTO_SHUTDOWNS.includes(autoShutdown)) throw invalid(`autoShutdown must be never, any-significant or all-significant, got ${String(autoShutdown)}`);
  if (!isCount(intensity?.max) || !isPositive(intensity.within)) throw invalid('intensity is { max: a whole number from 0, within: milliseconds above 0 }');
  if (!Array.isArray(children)) throw invalid('children is an array of child specs');
  const specs = (children as readonly ChildSpec[]).map((spec) => checkSpec(spec, autoShutdown));
  const ids = new Set<string>();
  for (const { id } of specs) {
    if (ids.has(id)) throw specInvalid(id, 'another child has this id; ids are unique');
    ids.add(id);
  }
  return {
    strategy,
    intensity: { max: intensity.max, within: intensity.within },
    backoff: backoff === undefined ? undefined : checkBackoff(backoff),
    autoShutdown,
    specs,
  };
}

export function checkSpec(spec: ChildSpec<never>, autoShutdown: AutoShutdown): CheckedSpec {
  if (typeof spec !== 'object' || spec === null) throw specInvalid(undefined, 'a child spec is an object with id and start');
  const { id, start, restart, shutdown, significant = false } = spec;
  const fault = nameFault(id) ?? restartFault(restart) ?? shutdownFault(shutdown);
  if (fault !== undefined) throw specInvalid(id, fault);
  if (!(start instanceof Definition)) throw specInvalid(id, 'start is a behaviour: what defineActor, supervisor or fromMachine returned');
  if (typeof significant !== 'boolean') throw specInvalid(id, `significant is true or false, got ${String(significant)}`);
  if (significant && autoShutdown === 'never')
    throw specInvalid(id, "significant: true needs a supervisor with autoShutdown 'any-significant' or 'all-significant'");
  if (significant && (restart ?? 'permanent') === 'permanent')
    throw specInvalid(id, 'a permanent child cannot be significant: it never ends without a restart');
  return { id, definition: start, restart: restart ?? 'permanent', shutdown, significant };
}

export function countsAs(kind: DefinitionKind): 'supervisors' | 'workers' {
  return kind === 'supervisor' ? 'supervisors' : 'workers';
}

function checkBackoff(backoff: NonNullable<SupervisorOptions['backoff']>): Backoff {
  const { initial, max, factor = 2, jitter = 0.1 } = backoff;
  const right =
    isPositive(initial) &&
    isPositive(max) &&
    max >= initial &&
    typeof factor === 'number' &&
    factor >= 1 &&
    typeof jitter === 'number' &&
    jitter >= 0 &&
    jitter <= 1;
  if (!right) throw invalid('backoff is { initial and max: milliseconds above 0, max not below initial, factor from 1, jitter from 0 to 1 }');
  return { initial, max, factor, jitter };
}

function isCount(value: unknown): boolean {
  return Number.isInteger(value) && (value as number) >= 0;
}

function isPositive(value: unknown): boolean {
  return typeof value === 'number' && value > 0 && value < Number.POSITIVE_INFINITY;
}

function invalid(fault: string): ActorError {
  return new ActorError('ERR_SUPERVISOR_INVALID', `supervisor: ${fault}.`);
}

function specInvalid(id: unknown, fault: string): ActorError {
  return new ActorError('ERR_CHILD_SPEC_INVALID', `child spec ${typeof id === 'string' ? JSON.stringify(id) : ''}: ${fault}.`);
}
