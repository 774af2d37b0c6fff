// Faults of a simulated run, drawn from its seed.
//
// Invariants:
//  F1  Nothing goes wrong before the job runs: a start that fails is no restart.
//  F2  A crash is a failure from which the engine restores; steps whose failure ends a job, or costs nothing, do not crash.

import { MillraceError } from '../errors.ts';
import type { Faults, SimulatedHost } from './simulated-host.ts';

/** A number below 1 is a probability at each occasion, a whole number how often at most. */
export interface InjectedFaults {
  crash?: number;
  slow?: number;
  drop?: number;
}

/** Of a fault that happens at most n times: the probability at each occasion while some are left. */
const COUNTED = 0.05;
const CRASHES_MAX = 100;
const STALL_MS = 1000;
/** Steps at which a failure is a crash; the others belong to the start, to the end, or to work that may be left undone. */
const CRASHING = /^(source\.read|checkpoint\.(trigger|reserve|delta|segment|inflight|ack|metadata|register)|sink\.|restore\.)/;

export class SeededFaults implements Faults {
  readonly #host: SimulatedHost;
  readonly #crash: () => boolean;
  readonly #slow: () => boolean;
  readonly #drop: () => boolean;

  constructor(host: SimulatedHost, { crash = 0, slow = 0, drop = 0 }: InjectedFaults) {
    this.#host = host;
    this.#crash = occasion(host, 'crash', crash, CRASHES_MAX);
    this.#slow = occasion(host, 'slow', slow, Number.POSITIVE_INFINITY);
    this.#drop = occasion(host, 'drop', drop, Number.POSITIVE_INFINITY);
  }

  step(name: string): Promise<void> | undefined {
    if (CRASHING.test(name) && this.#crash()) return Promise.reject(new MillraceError('FAULT_INJECTED', `A crash at the step '${name}'.`));
    if (this.#slow()) return this.#host.pause(1 + Math.floor(this.#host.random() * STALL_MS));
    return undefined;
  }

  loses(): boolean {
    return this.#drop();
  }
}

function occasion(host: SimulatedHost, name: string, asked: number, max: number): () => boolean {
  if (!(asked >= 0) || (asked >= 1 && !Number.isInteger(asked)))
    throw new MillraceError('OPTION_INVALID', `faults: { ${name}: ${asked} } is no probability below 1 and no whole number.`);
  const probability = asked < 1 ? asked : COUNTED;
  let left = asked < 1 ? max : asked;
  return () => {
    if (left <= 0 || probability === 0 || host.random() >= probability) return false;
    left -= 1;
    return true;
  };
}
