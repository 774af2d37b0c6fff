import { describe, expect, it } from 'vitest';
import { type CallMail, Calls, isCallMail, whyUnanswered } from '../../src/cluster/calls.ts';
import { MillraceError } from '../../src/errors.ts';

/** Two workers and what is between them. */
function pair(answer: (method: string, args: unknown) => Promise<unknown>) {
  const cut = new AbortController();
  const lost = (_: string, _over: unknown, signal: AbortSignal): Promise<void> =>
    new Promise((resolve) => {
      for (const each of [signal, cut.signal]) {
        each.addEventListener('abort', () => resolve());
        if (each.aborted) resolve();
      }
    });
  const sides: Record<string, Calls> = {};
  const make = (self: string): Calls =>
    new Calls({
      tell: async (worker, message) => {
        if (cut.signal.aborted) throw new MillraceError('LINK_LOST', 'It is cut.');
        const copy = JSON.parse(JSON.stringify(message)) as CallMail;
        expect(isCallMail(copy)).toBe(true);
        queueMicrotask(() => sides[worker]!.heard(self, copy));
      },
      lost,
      answer,
    });
  sides.a = make('a');
  sides.b = make('b');
  return { a: sides.a, b: sides.b, cut: () => cut.abort() };
}
const b = { id: 'b', address: 'host:1' };

describe('a question to another worker', () => {
  it('is answered, and so are several at once, each with its own', async () => {
    const { a } = pair(async (method, args) => ({ method, args }));
    expect(await Promise.all([a.ask(b, 'one', 1), a.ask(b, 'two', { x: 2 })])).toEqual([
      { method: 'one', args: 1 },
      { method: 'two', args: { x: 2 } },
    ]);
  });

  it('is refused with the code and the sentence of the other one', async () => {
    const { a } = pair(() => Promise.reject(new MillraceError('SAVEPOINT_EXISTS', 'The folder is not empty.', { todo: 'Name another.' })));
    await expect(a.ask(b, 'savepoint', {})).rejects.toMatchObject({ code: 'SAVEPOINT_EXISTS', sentence: 'The folder is not empty.', todo: 'Name another.' });
  });

  it('that is not answered any more fails when the connection is lost, in time, or when it is given up', async () => {
    const { a, cut } = pair(() => new Promise(() => {}));
    const open = a.ask(b, 'wait', {});
    await expect(a.ask(b, 'wait', {}, { timeout: 5 })).rejects.toMatchObject({ code: 'LEADER_UNREACHABLE' });
    const given = new AbortController();
    const giving = a.ask(b, 'wait', {}, { signal: given.signal });
    given.abort(new Error('another leads by now'));
    await expect(giving).rejects.toThrow(/another leads by now/);
    cut();
    await expect(open).rejects.toMatchObject({ code: 'LEADER_UNREACHABLE' });
    await expect(a.ask(b, 'wait', {})).rejects.toThrow(/It is cut/);
  });

  it('fails with the reason of the end of whoever asks', async () => {
    const { a } = pair(() => new Promise(() => {}));
    const open = a.ask(b, 'wait', {});
    a.close(new MillraceError('CLUSTER_LEFT', 'We left.'));
    await expect(open).rejects.toMatchObject({ code: 'CLUSTER_LEFT' });
    await expect(a.ask(b, 'wait', {})).rejects.toMatchObject({ code: 'CLUSTER_LEFT' });
  });

  it.each([
    ['LEADER_UNREACHABLE', 'unknown'],
    ['LEADER_DEPOSED', 'not done'],
    ['JOB_NOT_FOUND', 'not done'],
    ['SAVEPOINT_EXISTS', undefined],
  ] as const)('%s says of it: %s', (code, why) => {
    expect(whyUnanswered(new MillraceError(code, 'x'))).toBe(why);
  });
});
