// What comes out of a program under a harness: its result, the watermarks that reach it, side outputs, dead letters.
//
// Who owns what: the result is read by an operator of its own behind the program, in one instance and never fused with it, so that it sees what has left a unit for
// good. Side outputs have names that only the test knows; they are caught where operators emit them, and undone with their unit.

import type { DeadLetter, Key } from '../graph/job.ts';
import { DEAD_LETTERS, MAIN, type Node } from '../graph/node.ts';
import type { OperatorFactory, Participant } from '../runtime/operator.ts';

/** A value that came out, and its timestamp in epoch milliseconds; undefined where it has none. */
export interface Stamped<T> {
  value: T;
  timestamp: number | undefined;
}

export function stamped<T>(value: T, timestamp: number): Stamped<T> {
  return { value, timestamp: Number.isNaN(timestamp) ? undefined : timestamp };
}

/** A timer that a process has set. */
export interface PendingTimer {
  key: Key;
  at: number;
  domain: 'event' | 'processing';
}
/** An operator whose users set timers. */
interface HoldsTimers {
  timers(): Iterable<PendingTimer>;
}
function holdsTimers(operator: object): operator is HoldsTimers {
  return typeof (operator as Partial<HoldsTimers>).timers === 'function';
}

/** Emissions of one instance of an operator to one side output. */
class SideOutput implements Participant {
  readonly name: string;
  readonly late: boolean;
  readonly emitted: (Stamped<unknown> & { readonly order: number })[] = [];
  #mark = 0;

  constructor(name: string, late: boolean) {
    this.name = name;
    this.late = late;
  }

  mark(): void {
    this.#mark = this.emitted.length;
  }
  rollback(): void {
    this.emitted.length = this.#mark;
  }
}

export class Captured {
  readonly results: Stamped<unknown>[] = [];
  readonly watermarks: number[] = [];
  readonly deadLetters: DeadLetter[] = [];
  readonly #sides: SideOutput[] = [];
  readonly #timed: HoldsTimers[] = [];
  #order = 0;

  /** The definition of the process behind the result. */
  readonly sink = {
    onRecord: (value: unknown, context: { readonly timestamp: number }): undefined => {
      this.results.push(stamped(value, context.timestamp));
    },
    onWatermark: (time: number): undefined => {
      if (Number.isFinite(time)) this.watermarks.push(time);
    },
  };

  /** Operators whose side outputs are caught, whether or not the program reads them too. */
  operators(operators: (node: Node) => OperatorFactory): (node: Node) => OperatorFactory {
    return (node) => (environment) => {
      const operator = operators(node)({
        ...environment,
        output: (name) => {
          const emit = environment.output(name);
          if (name === MAIN || name === DEAD_LETTERS) return emit;
          const side = new SideOutput(name, node.step.kind === 'window' && node.step.spec.lateOutput === name);
          this.#sides.push(side);
          environment.participate(side);
          return (value, timestamp) => {
            side.emitted.push({ ...stamped(value, timestamp), order: this.#order++ });
            emit?.(value, timestamp);
          };
        },
      });
      if (holdsTimers(operator)) this.#timed.push(operator);
      return operator;
    };
  }

  /** Takes what came to an output of that name. */
  side(name: string): Stamped<unknown>[] {
    return this.#take((side) => side.name === name);
  }
  late(): Stamped<unknown>[] {
    return this.#take((side) => side.late);
  }

  /** By time; a view. */
  timers(): PendingTimer[] {
    return this.#timed.flatMap((operator) => [...operator.timers()]).sort((a, b) => a.at - b.at);
  }

  #take(which: (side: SideOutput) => boolean): Stamped<unknown>[] {
    const taken = this.#sides.filter(which).flatMap((side) => {
      const all = side.emitted.splice(0);
      side.mark();
      return all;
    });
    return taken.sort((a, b) => a.order - b.order).map(({ value, timestamp }) => ({ value, timestamp }));
  }
}
