// Where Kafka → windows → Kafka is interrupted, and how: a process is killed or stopped at a named step, or its broker is killed. Used a few times by npm test, and often by
// npm run test:chaos. Every point gives what is wrong afterwards, as sentences.

import { setTimeout as sleep } from 'node:timers/promises';
import type { KafkaBroker } from '../services/kafka.ts';
import { KafkaTrial } from './kafka-trial.ts';
import { goesOn, NotReached, reached } from './stopping.ts';

/** Of transactions in these trials, ms: brokers end what is open for longer within half a second. */
export const TRANSACTION_TIMEOUT = 5_000;
/** In which samples are produced, ms: as long as that, the job is under load. Longer where a run was over before it came to its step. */
const LOADS = [1_500, 5_000, 15_000];

export interface Point {
  readonly name: string;
  readonly run: (trial: KafkaTrial, load: number) => Promise<string[]>;
  /** Kills the broker, so that it cannot be shared. */
  readonly ownBroker?: true;
  readonly options?: ConstructorParameters<typeof KafkaTrial>[1];
}

/** Killed at these steps in runs one after another, each at another parallelism, then finished. */
export function killedAt(steps: readonly string[], parallelism: readonly number[] = [2, 3, 1], options: Point['options'] = {}): Point {
  return {
    name: `SIGKILL at ${steps.join(', then at ')}`,
    options,
    async run(trial, load) {
      trial.produce(load);
      for (const [index, step] of steps.entries()) {
        const [name, at = '1'] = step.split('@');
        const { signal, code, errors } = await trial.begin({ parallelism: parallelism[index]! }, `${name}=kill@${at}`).ended;
        if (code === 0) throw new NotReached(`run ${index + 1} was over before it came to ${step}`);
        if (signal !== 'SIGKILL') return [`run ${index + 1} was not killed at ${step}, it ended with ${code}\n${errors}`];
      }
      return [...(await trial.finish({ parallelism: parallelism[steps.length]! })), ...(await trial.complaints())];
    },
  };
}

/** Killed whenever, twice. */
export function killedAfter(delays: readonly [number, number], parallelism: readonly [number, number, number]): Point {
  return {
    name: `SIGKILL after ${delays.map(Math.round).join(' ms and ')} ms`,
    async run(trial, load) {
      trial.produce(load);
      for (const [index, delay] of delays.entries()) {
        const { process, ended } = trial.begin({ parallelism: parallelism[index]! });
        await Promise.race([sleep(delay), ended]);
        process.kill('SIGKILL');
        await ended;
      }
      return [...(await trial.finish({ parallelism: parallelism[2] })), ...(await trial.complaints())];
    },
  };
}

/** Stopped at the step for longer than a transaction may be open; the same process goes on. */
export function stoppedAt(step: string): Point {
  return {
    name: `SIGSTOP at ${step} for longer than a transaction lasts`,
    options: { transactionTimeout: TRANSACTION_TIMEOUT },
    async run(trial, load) {
      trial.produce(load);
      const [name, at = '1'] = step.split('@');
      const begun = trial.begin({}, `${name}=stop@${at}`);
      await reached(begun);
      await sleep(TRANSACTION_TIMEOUT + 1_500);
      const { code, errors, said } = await goesOn(begun);
      const wrong = code === 0 && said?.status === 'finished' ? [] : [`the process that was stopped ended with ${code}\n${errors}`];
      return [...wrong, ...(await trial.complaints())];
    },
  };
}

/** Stopped at the step; another process takes its place, with other writers, and finishes; then the first one goes on, and may write nothing. */
export function zombieAt(step: string, parallelism: readonly [number, number]): Point {
  return {
    name: `a zombie from ${step}, ${parallelism[0]} writers, over a rescale to ${parallelism[1]}`,
    async run(trial, load) {
      trial.produce(load);
      const [name, at = '1'] = step.split('@');
      // What is fenced may not begin again: in a cluster it would not be the leader.
      const zombie = trial.begin({ parallelism: parallelism[0], restarts: 0 }, `${name}=stop@${at}`);
      await reached(zombie);
      const checkpoints = trial.copyCheckpoints('taken-over');
      const wrong = await trial.finish({ parallelism: parallelism[1], checkpoints });
      const { code, signal, errors } = await goesOn(zombie);
      if (signal !== null || code === 0) wrong.push(`the zombie ended with ${signal ?? code}\n${errors}`);
      return [...wrong, ...(await trial.complaints())];
    },
  };
}

/** The broker is killed while the job stands at the step, and comes back. */
export function brokerKilledAt(step: string, broker: () => KafkaBroker): Point {
  return {
    name: `the broker killed at ${step}`,
    ownBroker: true,
    async run(trial, load) {
      trial.produce(load);
      const [name, at = '1'] = step.split('@');
      const begun = trial.begin({}, `${name}=stop@${at}`);
      await reached(begun);
      await broker().kill();
      const going = goesOn(begun);
      await sleep(300);
      await broker().up();
      const { code, errors, said } = await going;
      const wrong = code === 0 && said?.status === 'finished' ? [] : [`the process ended with ${code}\n${errors}`];
      return [...wrong, ...(await trial.complaints())];
    },
  };
}

/** On the brokers: what is wrong. */
export async function runPoint(point: Point, brokers: string[]): Promise<string[]> {
  let wrong: string[] = [];
  for (const load of LOADS) {
    const trial = new KafkaTrial(brokers, point.options);
    let again = false;
    try {
      await trial.createTopics();
      wrong = await point.run(trial, load);
    } catch (error) {
      again = error instanceof NotReached;
      wrong = [error instanceof Error ? (error.stack ?? error.message) : String(error)];
    }
    await trial.remove();
    if (!again) break;
  }
  return wrong.map((sentence) => `${point.name}: ${sentence}`);
}
