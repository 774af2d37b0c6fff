// What is stricter under test than in production: records cannot be changed once they were emitted, and state cannot be used after its callback.
//
// Invariants:
//  G1  Every value that a source, a function or an operator emits is deep-frozen, plain objects and arrays only (protocols 16).
//  G2  Values handed out of declared state throw STATE_USED_AFTER_CALLBACK once their callback has ended (protocols 3); nothing emitted or stored is such a proxy.

import { DEAD_LETTERS, type Node, nameOf, type ProcessSpec, type Step, type WindowFunction } from '../graph/node.ts';
import type { Source } from '../graph/source.ts';
import type { OperatorEnvironment, OperatorFactory } from '../runtime/operator.ts';
import { lendingAggregate, lendingKinds, lendingReducer } from './lent-accumulators.ts';
import { Loan, owned } from './lent-state.ts';
import { deepFrozen } from './plain.ts';

/** Changes the nodes of a program that was just built; they are nobody else's. */
export function guarded(nodes: readonly Node[]): readonly Node[] {
  for (const node of nodes) (node as { step: Step }).step = guardedStep(node);
  return nodes;
}

function guardedStep(node: Node): Step {
  const { step } = node;
  switch (step.kind) {
    case 'source':
      return { ...step, source: frozenSource(step.source) };
    case 'map':
      return { ...step, fn: (value: unknown) => deepFrozen(step.fn(value)) };
    case 'flatMap':
      return { ...step, fn: (value: unknown) => eachFrozen(step.fn(value)) };
    case 'reduce':
      return { ...step, fn: lendingReducer(nameOf(node), step.fn) };
    case 'aggregate':
      return { ...step, fn: lendingAggregate(nameOf(node), step.fn) };
    case 'process':
      return { ...step, spec: lendingState(nameOf(node), step.spec) };
    case 'window':
      return { ...step, spec: { ...step.spec, makes: lendingWindowState(nameOf(node), step.spec.makes) } };
    default:
      return step;
  }
}

function frozenSource(source: Source<unknown>): Source<unknown> {
  const { onCheckpointComplete, jobEnded } = source as Partial<Source<unknown>> & { jobEnded?(): void };
  return {
    bounded: source.bounded,
    splits: (context) => source.splits(context),
    splitId: (split) => source.splitId(split),
    async *read(split, from, context) {
      for await (const batch of source.read(split, from, context)) {
        for (const value of batch.values) deepFrozen(value);
        yield batch;
      }
    },
    ...(onCheckpointComplete === undefined ? {} : { onCheckpointComplete: (positions: Map<string, unknown>) => source.onCheckpointComplete!(positions) }),
    ...(jobEnded === undefined ? {} : { jobEnded: () => jobEnded.call(source) }),
  };
}

/** What is no iterable goes on as it is: the chain says what is wrong with it. */
function eachFrozen(values: Iterable<unknown>): Iterable<unknown> {
  if (!isIterable(values)) return values;
  return (function* () {
    for (const value of values) yield deepFrozen(value);
  })();
}

type Handler = (this: ProcessSpec, ...given: unknown[]) => unknown;
const HANDLERS = ['onRecord', 'onLeft', 'onRight', 'onTimer', 'onStart', 'onWatermark', 'onEnd'] as const;

function lendingState(uid: string, spec: ProcessSpec): ProcessSpec {
  const lending: Record<string, Handler> = {};
  for (const name of HANDLERS) {
    const handler = spec[name] as Handler | undefined;
    if (handler === undefined) continue;
    // The context is the last of what a handler is given.
    lending[name] = (...given) => {
      const loan = new Loan(uid);
      const context = given.pop() as object;
      try {
        return handler.call(spec, ...given, borrowing(context, loan));
      } finally {
        loan.end();
      }
    };
  }
  return Object.assign(Object.create(spec) as ProcessSpec, lending, { state: lendingKinds(uid, spec.state) });
}

function lendingWindowState(uid: string, makes: WindowFunction): WindowFunction {
  if (makes.kind === 'aggregate') return { ...makes, fn: lendingAggregate(uid, makes.fn) };
  if (makes.kind !== 'process') return makes;
  const { onFire, onClear } = makes;
  const lending = <R>(run: (context: object) => R, context: unknown): R => {
    const loan = new Loan(uid);
    try {
      return run(borrowing(context as object, loan));
    } finally {
      loan.end();
    }
  };
  return {
    ...makes,
    state: lendingKinds(uid, makes.state),
    windowState: lendingKinds(uid, makes.windowState),
    // Results may be made while they are taken: they are, within the loan.
    onFire: (context, values) =>
      lending((borrowed) => {
        const results = onFire(borrowed, values);
        return isIterable(results) ? [...results].map(owned) : results;
      }, context),
    onClear: onClear === undefined ? undefined : (context) => lending(onClear, context),
  };
}

function isIterable(values: unknown): values is Iterable<unknown> {
  return typeof (values as Partial<Iterable<unknown>> | undefined | null)?.[Symbol.iterator] === 'function';
}

function borrowing(context: object, loan: Loan): object {
  const lent = new Map<PropertyKey, object>();
  return new Proxy(context, {
    get(target, name) {
      const member: unknown = Reflect.get(target, name, target);
      if (typeof member === 'function') return member.bind(target);
      if (name !== 'state' && name !== 'windowState') return member;
      const handles = lent.get(name) ?? Object.fromEntries(Object.entries(member as object).map(([of, handle]) => [of, loan.handle(handle as object)]));
      lent.set(name, handles);
      return handles;
    },
  });
}

/** Operators that emit nothing that can be changed, and nothing that is lent. */
export function guardedOperators(operators: (node: Node) => OperatorFactory): (node: Node) => OperatorFactory {
  return (node) => (environment) => operators(node)({ ...environment, output: (name) => guardedOutput(environment, name) });
}

function guardedOutput(environment: OperatorEnvironment, name: string): ReturnType<OperatorEnvironment['output']> {
  const emit = environment.output(name);
  if (emit === undefined || name === DEAD_LETTERS) return emit;
  return (value, timestamp) => emit(deepFrozen(owned(value)), timestamp);
}
