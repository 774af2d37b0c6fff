// The port to disk, clock, randomness, and the fault hooks in it.
//
// What: everything outside that the engine and the connectors of this package touch goes through an `Io`, so that tests can drive time and fail the
// disk. Every step of a checkpoint, of a sink's commit and of a restore calls `io.step(name)`; a test can kill, stall or fail the process there.
// Inert unless set: `step` is then one comparison.
//
// Faults are set by `withFaults(io, 'name=action, …')` or, for a whole process, by the environment variable MILLRACE_FAULTS:
//   checkpoint.ack=kill            SIGKILL to this process when the step is reached
//   checkpoint.ack=kill@3          … the third time
//   restore.load=stall:5000        wait 5 s there, once
//   commit.marker=fail@2           throw FAULT_INJECTED the second time
//   commit.marker=fail*            … every time
//   sink.kafka.commit=stop         SIGSTOP to this process, which goes on from there when it is sent SIGCONT

import { promises as fs } from 'node:fs';
import { MillraceError } from '../errors.ts';

export interface Clock {
  /** Epoch milliseconds. */
  now(): number;
  setTimeout(fn: () => void, ms: number): unknown;
  clearTimeout(handle: unknown): void;
}

/** Few small values under ordered keys, durable where `sync` is asked for. */
export interface ValueStore {
  get(key: string): Promise<unknown>;
  put(key: string, value: unknown, options: { sync: boolean }): Promise<void>;
  del(key: string, options: { sync: boolean }): Promise<void>;
  batch(entries: ({ type: 'put'; key: string; value: unknown } | { type: 'del'; key: string })[], options: { sync: boolean }): Promise<void>;
  values(range: { gt: string; lt: string }): AsyncIterable<unknown>;
  close(): Promise<void>;
}

export interface Io {
  readonly fs: typeof fs;
  /** Opens the store in that folder; undefined: LevelDB does. */
  readonly openStore?: (folder: string) => Promise<ValueStore>;
  readonly clock: Clock;
  /** Milliseconds since some instant, finely: what slices of work are measured with. A simulated one stands still while code runs. */
  elapsed(): number;
  random(): number;
  /** A named step: resolves at once unless a fault is set at it. */
  step(name: string): Promise<void> | undefined;
}

export const systemClock: Clock = {
  now: Date.now,
  setTimeout: (fn, ms) => setTimeout(fn, ms),
  clearTimeout: (handle) => clearTimeout(handle as NodeJS.Timeout),
};

/** The real world. Faults come from MILLRACE_FAULTS. */
export function systemIo(): Io {
  const io: Io = { fs, clock: systemClock, elapsed: () => performance.now(), random: Math.random, step: () => undefined };
  const faults = process.env.MILLRACE_FAULTS;
  return faults === undefined || faults === '' ? io : withFaults(io, faults);
}

interface Fault {
  readonly action: 'kill' | 'stall' | 'fail' | 'stop';
  readonly ms: number;
  readonly at: number;
  readonly always: boolean;
  reached: number;
}

export function withFaults(io: Io, description: string): Io {
  const faults = new Map<string, Fault>();
  for (const part of description.split(/[,\s]+/)) {
    if (part === '') continue;
    const match = /^([\w.-]+)=(kill|stall|fail|stop)(?::(\d+))?(?:@(\d+)|(\*))?$/.exec(part);
    if (match === null)
      throw new MillraceError('OPTION_INVALID', `'${part}' is no fault.`, {
        todo: 'Write name=kill|stall:ms|fail|stop, with @n for the n-th time or * for every time.',
      });
    faults.set(match[1]!, {
      action: match[2] as Fault['action'],
      ms: Number(match[3] ?? 0),
      at: Number(match[4] ?? 1),
      always: match[5] !== undefined,
      reached: 0,
    });
  }
  return {
    ...io,
    step(name) {
      const fault = faults.get(name);
      if (fault === undefined) return undefined;
      fault.reached += 1;
      if (!fault.always && fault.reached !== fault.at) return undefined;
      switch (fault.action) {
        case 'kill':
          process.kill(process.pid, 'SIGKILL');
          return new Promise(() => {});
        case 'stop':
          process.kill(process.pid, 'SIGSTOP');
          return new Promise((resolve) => void setImmediate(resolve));
        case 'stall':
          return new Promise((resolve) => void setTimeout(resolve, fault.ms));
        case 'fail':
          return Promise.reject(new MillraceError('FAULT_INJECTED', `The fault set at '${name}' was reached.`));
      }
    },
  };
}
