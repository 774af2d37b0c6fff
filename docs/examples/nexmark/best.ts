// The values for which a figure is the largest, all of them where several have the same: an aggregate that keeps as little as the answer needs.

import type { AggregateFunction } from 'millrace';

export interface Best<T> {
  readonly most: number;
  readonly values: readonly T[];
}

export function best<T>(figure: (value: T) => number): AggregateFunction<T, Best<T>, readonly T[]> {
  return {
    create: () => ({ most: Number.NEGATIVE_INFINITY, values: [] }),
    add(held, value) {
      const n = figure(value);
      if (n < held.most) return held;
      return { most: n, values: n === held.most ? [...held.values, value] : [value] };
    },
    merge(a, b) {
      if (a.most === b.most) return { most: a.most, values: [...a.values, ...b.values] };
      return a.most > b.most ? a : b;
    },
    result: ({ values }) => values,
  };
}
