// Checks of what a program may ask for when it starts an actor. Pure: they throw or answer.

import type { SpawnOptions } from './behaviour.ts';
import type { DefinitionKind } from './definition.ts';
import { ActorError, type ActorErrorCode } from './errors.ts';
import type { RestartType } from './restart-policy.ts';

export type Shutdown = number | 'infinity' | 'brutal';

export const DEFAULT_SHUTDOWN_MS = 5000;
const RESTARTS: readonly unknown[] = ['permanent', 'transient', 'temporary'];

/** What is wrong with a name; undefined when nothing is. */
export function nameFault(name: unknown): string | undefined {
  if (typeof name !== 'string' || name === '') return `a name is a non-empty string, got ${String(name)}`;
  return name.includes('/') ? `a name has no "/", which separates names in a path: ${JSON.stringify(name)}` : undefined;
}

export function restartFault(restart: unknown): string | undefined {
  return restart === undefined || RESTARTS.includes(restart) ? undefined : `restart must be permanent, transient or temporary, got ${String(restart)}`;
}

export function shutdownFault(shutdown: unknown): string | undefined {
  if (shutdown === undefined || shutdown === 'infinity' || shutdown === 'brutal') return undefined;
  if (typeof shutdown === 'number' && shutdown >= 0) return undefined;
  return `shutdown must be milliseconds from 0, 'infinity' or 'brutal', got ${String(shutdown)}`;
}

export function checkSpawnOptions(options: SpawnOptions): void {
  if (options.name !== undefined) refuse('ERR_NAME_INVALID', nameFault(options.name));
  refuse('ERR_OPTIONS_INVALID', restartFault(options.restart));
  refuse('ERR_OPTIONS_INVALID', shutdownFault(options.shutdown));
}

export function shutdownOf(shutdown: Shutdown | undefined, kind: DefinitionKind): Shutdown {
  return shutdown ?? (kind === 'supervisor' ? 'infinity' : DEFAULT_SHUTDOWN_MS);
}

export function restartOf(restart: RestartType | undefined): RestartType {
  return restart ?? 'temporary';
}

function refuse(code: ActorErrorCode, fault: string | undefined): void {
  if (fault !== undefined) throw new ActorError(code, `spawn: ${fault}.`);
}
