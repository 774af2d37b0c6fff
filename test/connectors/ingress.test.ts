import { describe, expect, it } from 'vitest';
import { ingress } from '../../src/connectors/ingress.ts';
import type { Source } from '../../src/graph/source.ts';
import { endsWithJob } from '../../src/graph/source.ts';
import { readContext } from './reading.ts';

function reader<T>(source: Source<T>, attempt = new AbortController()) {
  return { attempt, batches: source.read('ingress', undefined, readContext([], { signal: attempt.signal }))[Symbol.asyncIterator]() };
}
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe('an ingress', () => {
  it('hands over what was sent, in order, with the timestamps', async () => {
    const hits = ingress<string>();
    const { batches } = reader(hits);
    const first = batches.next();
    await hits.send('a', 5);
    await hits.send('b');
    expect((await first).value).toEqual({ values: ['a', 'b'], timestamps: [5, Number.NaN], position: 2 });
    void hits.send('c', 6);
    expect((await batches.next()).value).toEqual({ values: ['c'], timestamps: [6], position: 3 });
  });

  it('lets senders wait until a job reads', async () => {
    const hits = ingress<number>();
    let accepted = false;
    const sent = hits.send(1).then(() => {
      accepted = true;
    });
    await turn();
    expect(accepted).toBe(false);
    const { batches } = reader(hits);
    expect((await batches.next()).value?.values).toEqual([1]);
    await sent;
  });

  it('lets senders wait under back-pressure, and keeps their order', async () => {
    const hits = ingress<number>();
    const { batches } = reader(hits);
    const first = batches.next();
    let accepted = 0;
    for (let n = 0; n < 5000; n += 1)
      void hits.send(n).then(() => {
        accepted += 1;
      });
    await turn();
    expect(accepted).toBeLessThan(3000);
    const seen = [...(await first).value!.values];
    while (seen.length < 5000) seen.push(...(await batches.next()).value!.values);
    expect(seen).toEqual(Array.from({ length: 5000 }, (_, n) => n));
    expect(accepted).toBe(5000);
  });

  it('keeps over a restart what was accepted and not handed over', async () => {
    const hits = ingress<number>();
    const first = reader(hits);
    const pending = first.batches.next();
    await turn();
    await hits.send(1);
    first.attempt.abort();
    expect((await pending).done).toBe(true);
    expect((await reader(hits).batches.next()).value?.values).toEqual([1]);
  });

  it('refuses with JOB_ENDED when the job has ended, those who wait too, until one runs again', async () => {
    const hits = ingress<number>();
    const waiting = hits.send(1);
    expect(endsWithJob(hits)).toBe(true);
    if (endsWithJob(hits)) hits.jobEnded();
    await expect(waiting).rejects.toMatchObject({ code: 'JOB_ENDED' });
    await expect(hits.send(2)).rejects.toMatchObject({ code: 'JOB_ENDED' });
    const { batches } = reader(hits);
    const next = batches.next();
    await hits.send(3);
    expect((await next).value?.values).toEqual([3]);
  });
});
