import { describe, expect, it } from 'vitest';
import { Loan, owned } from '../../src/testing/lent-state.ts';
import { deepFrozen } from '../../src/testing/plain.ts';

describe('a lent value', () => {
  it('is read and changed as the value itself', () => {
    const row = { n: 1, tags: ['a'], inner: { deep: [1, 2] } };
    const loan = new Loan('uid');
    const lent = loan.lend(row);
    lent.n += 1;
    lent.tags.push('b');
    lent.inner.deep[0] = 9;
    delete (lent as { n?: number }).n;
    Object.defineProperty(lent, 'n', { value: 5, configurable: true, enumerable: true, writable: true });
    expect(row).toEqual({ n: 5, tags: ['a', 'b'], inner: { deep: [9, 2] } });
    expect(JSON.stringify(lent)).toBe(JSON.stringify(row));
    expect({ ...lent }.n).toBe(5);
    expect(Object.keys(lent).sort()).toEqual(['inner', 'n', 'tags']);
    expect('n' in lent).toBe(true);
    expect(lent.inner).toBe(lent.inner);
  });

  it('takes no proxy into the value', () => {
    const row: { items: unknown[]; first?: unknown } = { items: [{ a: 1 }] };
    const lent = new Loan('uid').lend(row);
    lent.first = lent.items[0];
    lent.items.push({ again: lent.items[0] });
    expect(structuredClone(row)).toEqual({ items: [{ a: 1 }, { again: { a: 1 } }], first: { a: 1 } });
  });

  it.each<[string, (lent: { n: number; list: number[] }) => unknown]>([
    ['read', (lent) => lent.n],
    ['written', (lent) => (lent.n = 2)],
    ['iterated', (lent) => [...lent.list]],
    ['spread', (lent) => ({ ...lent })],
    ['asked for a name', (lent) => 'n' in lent],
    ['deleted from', (lent) => delete (lent as { n?: number }).n],
    ['printed', (lent) => JSON.stringify(lent)],
  ])('throws when it is %s after its loan has ended', (_, use) => {
    const loan = new Loan('uid');
    const lent = loan.lend({ n: 1, list: [1] });
    loan.end();
    expect(() => use(lent)).toThrow(expect.objectContaining({ code: 'STATE_USED_AFTER_CALLBACK' }));
  });

  it('that is frozen can be read, and says why it cannot be changed', () => {
    const loan = new Loan('uid');
    const lent = loan.lend(deepFrozen({ inner: { n: 1 } }));
    expect(lent.inner.n).toBe(1);
    expect(() => {
      (lent as { inner: unknown }).inner = 2;
    }).toThrow('it was emitted');
  });

  it('of a class, and what is no object, is given as it is', () => {
    const loan = new Loan('uid');
    const date = new Date(0);
    const set = new Set([1]);
    for (const value of [date, set, 'text', 1n, null, undefined]) expect(loan.lend(value)).toBe(value);
  });
});

describe('owned', () => {
  it('finds proxies at any depth, also around a cycle and within what is frozen', () => {
    const inner = { n: 1 };
    const lent = new Loan('uid').lend(inner);
    const cyclic: { self?: unknown; list: unknown[] } = { list: [[lent]] };
    cyclic.self = cyclic;
    owned(cyclic);
    expect((cyclic.list[0] as unknown[])[0]).toBe(inner);
    expect(cyclic.self).toBe(cyclic);
    const frozen = Object.freeze({ lent });
    expect(owned(frozen).lent).toBe(inner);
    expect(owned(frozen)).not.toBe(frozen);
    const untouched = Object.freeze({ a: 1 });
    expect(owned(untouched)).toBe(untouched);
  });
});

describe('deepFrozen', () => {
  it('freezes plain objects and arrays, and leaves bytes and classes alone', () => {
    const value = deepFrozen({ list: [{ n: 1 }], bytes: new Uint8Array(2), date: new Date(0) });
    expect(Object.isFrozen(value.list[0])).toBe(true);
    expect(Object.isFrozen(value.bytes)).toBe(false);
    expect(Object.isFrozen(value.date)).toBe(false);
    expect(deepFrozen(value)).toBe(value);
  });
});
