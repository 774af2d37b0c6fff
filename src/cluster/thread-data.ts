// What a thread is given so that it can do what this one would: the module, and the job's options as data. Pure.

import type { StateBackend } from '../../state-backends/index.ts';
import { MillraceError } from '../errors.ts';
import type { RunOptions } from '../graph/job.ts';
import type { Node } from '../graph/node.ts';
import type { CheckpointStorage } from '../graph/storage.ts';

/** A backend or a storage: what it is made from. */
export interface Described {
  readonly kind: string;
  readonly settings: unknown;
}

export interface ThreadData {
  readonly job: string;
  /** The address of the module. */
  readonly module: string;
  readonly state: Described;
  readonly checkpoints: { readonly directory: string; readonly storage: Described | undefined; readonly verify: boolean | undefined } | undefined;
  /** The module was loaded by the command, which also loads TypeScript where Node does not. */
  readonly hooks: boolean;
}

/** Throws OPTION_INVALID or PLAN_INVALID where the job cannot run in threads. */
export function threadData(job: { readonly name: string; build(): Node[] }, options: RunOptions, hooks: boolean): ThreadData {
  const { threads, module, state, checkpoints } = options;
  if (!Number.isInteger(threads) || threads! < 0 || threads! > 64)
    throw new MillraceError('OPTION_INVALID', `threads ${threads}: it is a whole number from 0 to 64.`);
  if (module === undefined)
    throw new MillraceError('OPTION_INVALID', `The job '${job.name}' is to run in threads, and they do not know its module.`, {
      todo: 'Make it the default export of a module, and give its address: module: import.meta.url.',
    });
  refuseAligned(job, 'threads');
  const on = checkpoints === false ? undefined : checkpoints;
  return {
    job: job.name,
    module: typeof module === 'string' && !/^[a-z]+:/.test(module) ? new URL(module, 'file:///').href : String(module),
    state: described(state ?? { kind: 'memory', settings: {} }, 'state'),
    checkpoints:
      on === undefined
        ? undefined
        : { directory: on.directory, storage: on.storage === undefined ? undefined : described(on.storage, 'storage'), verify: on.verify },
    hooks,
  };
}

/** A group of sources knows of those in its own thread only. @throws PLAN_INVALID */
export function refuseAligned(job: { build(): Node[] }, across: 'threads' | 'workers'): void {
  for (const node of job.build()) {
    if (node.step.kind === 'source' && node.step.strategy?.align !== undefined)
      throw new MillraceError('PLAN_INVALID', `The source '${node.uid}' is aligned with others, which is not done across ${across}.`, {
        uid: node.uid!,
        todo: across === 'threads' ? 'Run the job without threads, or take alignment out.' : 'Run the job in one process, or take alignment out.',
      });
  }
}

function described({ kind, settings }: (StateBackend | CheckpointStorage) & { readonly settings?: unknown }, what: string): Described {
  try {
    if (settings !== undefined) return { kind, settings: structuredClone(settings) };
  } catch {
    // Functions, such as those that give credentials.
  }
  throw new MillraceError('OPTION_INVALID', `The ${what} '${kind}' cannot be made in another thread.`, {
    todo: 'With threads use memory(), level() or s3(), with settings that are plain data.',
  });
}
