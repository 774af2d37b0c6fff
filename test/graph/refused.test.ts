// What is refused when a plan is built: each refusal has a code, and the uid of what is refused, in its fields and in its sentence.

import { count, job, type Sink, type Stream, type StreamEnvironment, tumbling } from 'millrace';
import { describe, expect, it } from 'vitest';

const numbers = (env: StreamEnvironment): Stream<number> => env.fromArray('in', [1], { timestamp: (v) => v });
const missing = undefined as unknown as (left: number, right: number) => number;

const REFUSED: [string, string, (env: StreamEnvironment) => unknown][] = [
  ['a sink that is none', 'PLAN_INVALID', (env) => numbers(env).sink('it', {} as Sink<number>)],
  [
    'a function that is none',
    'PLAN_INVALID',
    (env) =>
      numbers(env)
        .keyBy((v) => v)
        .reduce('it', missing),
  ],
  ['a window function that is none', 'PLAN_INVALID', (env) => numbers(env).windowAll(tumbling(5)).reduce('it', missing)],
  [
    'a parallelism of 0',
    'OPTION_INVALID',
    (env) =>
      numbers(env)
        .keyBy((v) => v)
        .aggregate('it', count())
        .parallelism(0),
  ],
  [
    'a policy that is none',
    'OPTION_INVALID',
    (env) =>
      numbers(env)
        .keyBy((v) => v)
        .aggregate('it', count())
        .onError('ignore' as 'skip'),
  ],
  [
    'a stream of another job',
    'PLAN_INVALID',
    (env) => {
      let foreign: Stream<number> | undefined;
      job('other', (other) => {
        foreign = numbers(other);
      }).plan();
      numbers(env)
        .union(foreign!)
        .forEach('it', () => {});
    },
  ],
];

describe('a plan is refused with the uid of', () => {
  it.each(REFUSED)('%s', (_, code, build) => {
    const plan = (): unknown => job('refused', (env) => void build(env)).plan();
    expect(plan).toThrow(expect.objectContaining({ code, uid: 'it', message: expect.stringContaining("'it'") }));
  });
});
