// The running reduce and the running aggregate: one row a key, a result for every record.
//
// Invariants (protocols 16):
//  R1  Nothing is emitted that the operator may change later. Where a reducer returns its left argument, or `result` the accumulator, a copy leaves.
//  R2  The first value of a key is kept as a copy until the reducer has been seen to leave its left argument alone.

import { copy, type SingleTable } from '../../state-backends/index.ts';
import type { AnyAggregate } from '../graph/node.ts';
import { MAIN } from '../graph/node.ts';
import { fresh } from '../runtime/fresh.ts';
import { rejectThenable } from '../runtime/handlers.ts';
import type { Emit, Operator, OperatorEnvironment } from '../runtime/operator.ts';

interface ReduceDependencies {
  readonly table: SingleTable;
  readonly fn: (left: unknown, right: unknown) => unknown;
  readonly emit: Emit;
  readonly copy: (value: unknown) => unknown;
  readonly reject: (result: object) => void;
}

/** Free of outside names: see fresh.ts. */
const reducing = ({ table, fn, emit, copy, reject }: ReduceDependencies): Operator => {
  let keepsLeft = false;
  let seen = false;
  return {
    ahead: (hashes, from, to) => table.ahead(hashes, from, to),
    process(value, timestamp, key, hash) {
      const row = table.find(key, hash);
      if (row === undefined) {
        table.insert(key, hash, seen && !keepsLeft ? value : typeof value === 'object' && value !== null ? copy(value) : value);
        emit(value, timestamp);
        return;
      }
      table.touch(row);
      const left = row.value;
      const next = fn(left, value);
      seen = true;
      if (typeof next === 'object' && next !== null) {
        if (next === left) keepsLeft = true;
        if (keepsLeft) {
          row.value = next === value ? copy(next) : next;
          emit(copy(next), timestamp);
          return;
        }
        if ('then' in next) reject(next);
      }
      row.value = next;
      emit(next, timestamp);
    },
  };
};

export function reduceOperator(environment: OperatorEnvironment, fn: (left: unknown, right: unknown) => unknown): Operator {
  const table = environment.state().single(environment.uid, 'value');
  const make = fresh<ReduceDependencies, Operator>(reducing, `reduce-${environment.uid}`);
  return make({ table, fn, emit: environment.output(MAIN)!, copy, reject: (result) => rejectThenable(result, environment.uid) });
}

interface AggregateDependencies {
  readonly table: SingleTable;
  readonly fn: AnyAggregate;
  readonly emit: Emit;
  readonly copy: (value: unknown) => unknown;
  readonly reject: (result: object) => void;
}

const aggregating = ({ table, fn, emit, copy, reject }: AggregateDependencies): Operator => ({
  ahead: (hashes, from, to) => table.ahead(hashes, from, to),
  process(value, timestamp, key, hash) {
    let row = table.find(key, hash);
    if (row === undefined) row = table.insert(key, hash, fn.create());
    else table.touch(row);
    const held = fn.add(row.value, value);
    if (typeof held === 'object' && held !== null && 'then' in held) reject(held);
    row.value = held;
    const result = fn.result(held);
    if (typeof result === 'object' && result !== null && 'then' in result) reject(result);
    emit({ key, value: result === held && typeof result === 'object' && result !== null ? copy(result) : result }, timestamp);
  },
});

export function aggregateOperator(environment: OperatorEnvironment, fn: AnyAggregate): Operator {
  const table = environment.state().single(environment.uid, 'value');
  const make = fresh<AggregateDependencies, Operator>(aggregating, `aggregate-${environment.uid}`);
  return make({ table, fn, emit: environment.output(MAIN)!, copy, reject: (result) => rejectThenable(result, environment.uid) });
}
