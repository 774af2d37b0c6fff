// Accumulators lent to functions of the program: `add`, `merge`, `result` and reducers may change what they are given while they run, and not later (protocols 3).
//
// What: the aggregates that come with Millrace are left as they are: the engine knows them by their marks, and they keep nothing.

import { type Aggregating, aggregating, declaredOf, reducing } from '../../state-backends/index.ts';
import type { AnyAggregate } from '../graph/node.ts';
import { isKept, isPure } from '../operators/aggregates.ts';
import { Loan, owned } from './lent-state.ts';

type Reducer = (left: unknown, right: unknown) => unknown;

export function lendingReducer(uid: string, fn: Reducer): Reducer {
  return (left, right) => within(uid, (loan) => fn(loan.lend(left), right));
}

export function lendingAggregate<F extends AnyAggregate | Aggregating<unknown, unknown, unknown>>(uid: string, fn: F): F {
  if (isPure(fn) || isKept(fn)) return fn;
  const lending = {
    add: (accumulator: unknown, value: unknown) => within(uid, (loan) => fn.add(loan.lend(accumulator), value)),
    result: (accumulator: unknown) => within(uid, (loan) => fn.result(loan.lend(accumulator))),
    ...(fn.merge === undefined ? {} : { merge: (left: unknown, right: unknown) => within(uid, (loan) => fn.merge!(loan.lend(left), loan.lend(right))) }),
  };
  // Its other marks are found behind it.
  return Object.assign(Object.create(fn) as F, { create: () => fn.create(), ...lending });
}

/** Declared state with the functions in it lent to. */
export function lendingKinds(uid: string, state: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const lending = Object.entries(state).map(([name, kind]) => {
    const declared = declaredOf(kind as Parameters<typeof declaredOf>[0]);
    if (declared?.kind === 'reducing') return [name, reducing(lendingReducer(uid, declared.fn), declared.options)];
    if (declared?.kind === 'aggregating') return [name, aggregating(lendingAggregate(uid, declared.fn), declared.options)];
    return [name, kind];
  });
  return Object.fromEntries(lending);
}

function within<R>(uid: string, run: (loan: Loan) => R): R {
  const loan = new Loan(uid);
  try {
    return owned(run(loan));
  } finally {
    loan.end();
  }
}
