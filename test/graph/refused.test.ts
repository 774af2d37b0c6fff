// What is refused when a plan is built: each refusal has a code, and the uid of what is refused, in its fields and in its sentence.

import { type ConnectedProcess, count, job, type ProcessDefinition, type Sink, type Stream, type StreamEnvironment, tumbling } from 'millrace';
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
    'more instances than there can be key groups',
    'OPTION_INVALID',
    (env) =>
      numbers(env)
        .forEach('it', () => {})
        .parallelism(40_000),
  ],
  [
    'a join by event time of records without timestamps',
    'TIMESTAMP_MISSING',
    (env) =>
      numbers(env)
        .keyBy((v) => v)
        .intervalJoin(
          'it',
          env
            .fromArray('bare', [1])
            .map((v) => v)
            .keyBy((v) => v),
          { lower: 0, upper: 1 },
          (l) => l,
        ),
  ],
  ['timers without keys', 'PLAN_INVALID', (env) => numbers(env).process('it', { onRecord() {}, onTimer() {} } as ProcessDefinition<number, never>)],
  [
    'timers of a connected process without keys',
    'PLAN_INVALID',
    (env) =>
      numbers(env)
        .connect(env.fromArray('other', [1]))
        .process('it', { onLeft() {}, onRight() {}, onTimer() {} } as ConnectedProcess<number, number, never>),
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

it('a job of more instances than there can be key groups is refused when it is planned', () => {
  const many = job('many', (env) => void numbers(env).forEach('it', () => {}));
  expect(() => many.plan({ parallelism: 40_000 })).toThrow(expect.objectContaining({ code: 'OPTION_INVALID', message: expect.stringContaining('32,768') }));
  expect(many.plan({ parallelism: 3 }).vertices).toHaveLength(1);
});

describe('a plan is refused with the uid of', () => {
  it.each(REFUSED)('%s', (_, code, build) => {
    const plan = (): unknown => job('refused', (env) => void build(env)).plan();
    expect(plan).toThrow(expect.objectContaining({ code, uid: 'it', message: expect.stringContaining("'it'") }));
  });
});
