// Which operator a step of the plan becomes.

import { MillraceError } from '../errors.ts';
import type { Node } from '../graph/node.ts';
import type { OperatorFactory } from '../runtime/operator.ts';
import { asyncMapOperator } from './async-map.ts';
import { intervalJoinOperator } from './interval-join.ts';
import { processOperator } from './process.ts';
import { aggregateOperator, reduceOperator } from './reduce.ts';
import { timestampsOperator } from './timestamps.ts';
import { windowOperator } from './window.ts';

export function operatorOf(node: Node): OperatorFactory {
  const { step } = node;
  switch (step.kind) {
    case 'reduce':
      return (environment) => reduceOperator(environment, step.fn);
    case 'aggregate':
      return (environment) => aggregateOperator(environment, step.fn);
    case 'window':
      return (environment) => windowOperator(environment, step.spec);
    case 'process':
      return (environment) => processOperator(environment, step);
    case 'intervalJoin':
      return (environment) => intervalJoinOperator(environment, step.spec);
    case 'asyncMap':
      return (environment) => asyncMapOperator(environment, step.fn, step.options);
    case 'timestamps':
      return (environment) => timestampsOperator(environment, step.strategy);
    default:
      throw new MillraceError('PLAN_INVALID', `'${step.kind}' is no operator.`);
  }
}
