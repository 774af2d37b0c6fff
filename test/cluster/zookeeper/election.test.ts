// Who leads: protocols 17 and 18 at the client's side, on a real server.

import { describe, expect, it, onTestFinished } from 'vitest';
import type { Client } from '../../../src/cluster/zookeeper/client.ts';
import { followedLeader, type Term, terms, type Yields } from '../../../src/cluster/zookeeper/election.ts';
import { CANDIDATES, LEADER } from '../../../src/cluster/zookeeper/paths.ts';
import { NO_ZOOKEEPER, zookeeperForTests } from '../../services/zookeeper.ts';
import { clientsForTests, freshRoot, text, told, until } from './clients.ts';
import { TcpProxy } from './proxy.ts';

class Candidate {
  readonly #ending = new AbortController();
  readonly #terms: AsyncGenerator<Term, void>;

  constructor(client: Client, name: string, yields?: Yields) {
    this.#terms = terms(client, name, this.#ending.signal, yields);
    onTestFinished(() => this.leave());
  }
  elected(): Promise<Term> {
    const term = this.#terms.next().then(({ value, done }) => {
      if (done === true) throw new Error('there is no term');
      return value as Term;
    });
    // A test may end before it.
    term.catch(() => {});
    return term;
  }
  async leave(): Promise<void> {
    this.#ending.abort();
    await this.#terms.return();
  }
}

async function proxied(): Promise<TcpProxy> {
  const proxy = await TcpProxy.start(await zookeeperForTests());
  onTestFinished(() => proxy.close());
  return proxy;
}

function standing(client: Client, count: number): Promise<string[]> {
  const signal = AbortSignal.timeout(10_000);
  const look = async function* (): AsyncGenerator<string[]> {
    while (!signal.aborted) {
      yield (await client.children(CANDIDATES)) ?? [];
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  return until(look(), (names) => names.length === count);
}

describe.skipIf(NO_ZOOKEEPER)('an election', () => {
  const client = clientsForTests();

  it('is won by the next one where who is first lets others pass, and by that one when it does so no more', async () => {
    const root = freshRoot();
    let passes = true;
    const polite = new Candidate(await client({ root }), 'polite', async () => passes);
    const later = polite.elected();
    const other = new Candidate(await client({ root }), 'other');
    const term = await other.elected();
    expect(term.epoch).toBe(1);
    passes = false;
    await other.leave();
    expect((await later).epoch).toBe(2);
  });

  it('has one leader at a time, in the order of the line, each in a higher epoch', async () => {
    const root = freshRoot();
    const candidates: Candidate[] = [];
    for (let i = 0; i < 3; i++) {
      const zk = await client({ root });
      candidates.push(new Candidate(zk, `n${i}`));
      if (i === 0) expect((await candidates[0]!.elected()).epoch).toBe(1);
    }
    const watcher = await client({ root });
    const leaders = followedLeader<string>(watcher, new AbortController().signal);
    expect((await leaders.next()).value).toEqual({ epoch: 1, value: 'n0' });
    const second = candidates[1]!.elected();
    await standing(watcher, 2);
    const third = candidates[2]!.elected();
    await standing(watcher, 3);
    await candidates[0]!.leave();
    const term = await second;
    expect([term.epoch, term.isLeader()]).toEqual([2, true]);
    expect((await leaders.next()).value).toEqual({ epoch: 2, value: 'n1' });
    await term.resign();
    expect([term.isLeader(), (term.ended.reason as { code: string }).code]).toEqual([false, 'LEADER_DEPOSED']);
    expect((await third).epoch).toBe(3);
    await leaders.return();
  });

  it('wakes one candidate where a place is given up, and nobody else', async () => {
    const root = freshRoot();
    const first = new Candidate(await client({ root }), 'first');
    await first.elected();
    const watcher = await client({ root });
    const lists: number[] = [];
    const waiting: Promise<Term>[] = [];
    const candidates: Candidate[] = [];
    for (let i = 0; i < 4; i++) {
      const zk = await client({ root });
      const { children } = zk;
      lists.push(0);
      zk.children = (...args) => {
        lists[i]! += 1;
        return children.apply(zk, args);
      };
      candidates.push(new Candidate(zk, `n${i}`));
      waiting.push(candidates[i]!.elected());
      await standing(watcher, i + 2);
    }
    const before = [...lists];
    await first.leave();
    await waiting[0];
    await watcher.settle();
    expect(lists.map((count, i) => count - before[i]!)).toEqual([1, 0, 0, 0]);
  });

  it('ends a term where its owner has enough, and lets the next lead', async () => {
    const root = freshRoot();
    const ending = new AbortController();
    const elections = terms(await client({ root }), 'a', ending.signal);
    const term = (await elections.next()).value as Term;
    const next = new Candidate(await client({ root }), 'b').elected();
    ending.abort();
    expect([term.isLeader(), term.ended.aborted]).toEqual([false, true]);
    expect((await elections.next()).done).toBe(true);
    expect((await next).epoch).toBe(2);
  });

  it('is led by nobody who has had enough while it was elected', async () => {
    const root = freshRoot();
    const zk = await client({ root });
    const ending = new AbortController();
    const { multi } = zk;
    zk.multi = async (...args) => {
      await multi.apply(zk, args);
      ending.abort();
    };
    expect(await terms(zk, 'a', ending.signal).next()).toEqual({ done: true, value: undefined });
    expect(await zk.children(CANDIDATES)).toEqual([]);
    expect((await new Candidate(await client({ root }), 'b').elected()).epoch).toBe(2);
  });

  it('ends for one who has had enough, and says nothing of the place that went with its session meanwhile', async () => {
    const root = freshRoot();
    const proxy = await proxied();
    const zk = await client({ root, connect: proxy.connect, sessionTimeoutMs: 1000 });
    const other = await client({ root });
    await new Candidate(other, 'leads').elected();
    const ending = new AbortController();
    const { children } = zk;
    zk.children = async (...args) => {
      const names = await children.apply(zk, args);
      if (zk.epoch === 2) ending.abort();
      return names;
    };
    const over = terms(zk, 'a', ending.signal).next();
    await standing(other, 2);
    proxy.cut();
    await standing(other, 1);
    proxy.mend();
    expect(await over).toEqual({ done: true, value: undefined });
  });

  it('goes on with another place for one whose session expires when it is about to lead', async () => {
    const root = freshRoot();
    const proxy = await proxied();
    const zk = await client({ root, connect: proxy.connect, sessionTimeoutMs: 1000 });
    const other = await client({ root });
    let asked = 0;
    const candidate = new Candidate(zk, 'a', async () => {
      asked += 1;
      if (asked > 1) return false;
      const expired = told(zk, 'expired');
      proxy.cut();
      await standing(other, 0);
      proxy.mend();
      await expired;
      return false;
    });
    const term = await candidate.elected();
    expect([term.epoch, term.isLeader(), zk.epoch, asked]).toEqual([1, true, 2, 2]);
  });

  it('is not held up by a place of which it cannot be asked in time whether it was taken', async () => {
    const root = freshRoot();
    const proxy = await proxied();
    const zk = await client({ root, connect: proxy.connect, sessionTimeoutMs: 10_000, connectTimeoutMs: 300 });
    const other = await client({ root });
    await zk.make(CANDIDATES);
    const lost = proxy.loseAnswerTo(`${CANDIDATES}/`).then(() => proxy.cut());
    const { settle } = zk;
    zk.settle = async () => {
      await settle.apply(zk).finally(() => proxy.mend());
    };
    const elected = new Candidate(zk, 'a').elected();
    await lost;
    const term = await elected;
    expect([term.epoch, term.isLeader(), zk.epoch]).toEqual([1, true, 1]);
    await standing(other, 1);
  });

  it('is not held up by a place that cannot be left when it should be', async () => {
    const root = freshRoot();
    const proxy = await proxied();
    const zk = await client({ root, connect: proxy.connect, sessionTimeoutMs: 10_000, connectTimeoutMs: 300 });
    const other = await client({ root });
    const { remove } = zk;
    zk.remove = async (...args) => {
      await remove.apply(zk, args).finally(() => proxy.mend());
    };
    let asked = 0;
    const candidate = new Candidate(zk, 'a', async () => {
      asked += 1;
      if (asked === 1) proxy.cut();
      return false;
    });
    const term = await candidate.elected();
    expect([term.epoch, term.isLeader(), zk.epoch, asked]).toEqual([1, true, 1, 2]);
    await standing(other, 1);
  });

  it('fences a leader that was deposed: what it writes with its epoch is refused', async () => {
    const root = freshRoot();
    const [a, b] = [await client({ root }), await client({ root })];
    const first = new Candidate(a, 'a');
    const old = await first.elected();
    await a.multi([old.check, { kind: 'create', path: '/x', value: text('1') }]);
    await first.leave();
    const next = await new Candidate(b, 'b').elected();
    const late = a.multi([old.check, { kind: 'set', path: '/x', value: text('2'), version: -1 }]);
    await expect(late).rejects.toMatchObject({ reason: 'bad-version', operation: 0 });
    await b.multi([next.check, { kind: 'set', path: '/x', value: text('3'), version: -1 }]);
    expect((await b.get('/x'))?.value.toString()).toBe('3');
  });

  it('ends a term where its place is removed, and where its epoch is raised, by hand', async () => {
    const root = freshRoot();
    const zk = await client({ root });
    const candidate = new Candidate(await client({ root }), 'a');
    const first = await candidate.elected();
    const [place] = (await zk.children(CANDIDATES))!;
    await zk.remove(`${CANDIDATES}/${place}`, -1);
    const second = await candidate.elected();
    expect([first.isLeader(), second.epoch]).toEqual([false, 2]);
    await zk.set(LEADER, text('{}'), 2);
    const third = await candidate.elected();
    expect([second.isLeader(), third.epoch]).toEqual([false, 4]);
  });

  it('settles by a read whether it was elected, where the answer was lost', async () => {
    const root = freshRoot();
    const proxy = await proxied();
    const zk = await client({ root, connect: proxy.connect });
    await zk.make(LEADER);
    const lost = proxy.loseAnswerTo('"place"');
    const elected = new Candidate(zk, 'a').elected();
    await lost;
    const term = await elected;
    expect([term.epoch, term.isLeader(), zk.epoch]).toEqual([1, true, 1]);
    expect((await zk.get(LEADER))?.stat.version).toBe(1);
  });

  it('stands in the line once, where the answer to taking a place was lost', async () => {
    const root = freshRoot();
    const proxy = await proxied();
    const zk = await client({ root, connect: proxy.connect });
    await zk.make(CANDIDATES);
    const lost = proxy.loseAnswerTo(`${CANDIDATES}/`);
    const elected = new Candidate(zk, 'a').elected();
    await lost;
    expect((await elected).epoch).toBe(1);
    expect((await zk.children(CANDIDATES))?.length).toBe(1);
  });

  it('ends a term by the lease, before the session is over, where nobody answers; the place is then given up', async () => {
    const root = freshRoot();
    const proxy = await proxied();
    const zk = await client({ root, connect: proxy.connect, sessionTimeoutMs: 1000 });
    const other = await client({ root, sessionTimeoutMs: 1000 });
    const candidate = new Candidate(zk, 'a');
    const term = await candidate.elected();
    const next = new Candidate(other, 'b').elected();
    await standing(other, 2);
    proxy.stall();
    proxy.cut();
    const stalled = performance.now();
    await new Promise((resolve) => term.ended.addEventListener('abort', resolve));
    expect(term.isLeader()).toBe(false);
    // Nobody else leads yet: the first loses it before the next can have it.
    expect((await other.get(LEADER))?.stat.version).toBe(1);
    const { epoch } = await next;
    expect(epoch).toBe(2);
    expect(performance.now() - stalled).toBeGreaterThan(750);
    const expired = told(zk, 'expired');
    proxy.mend();
    await expired;
    void candidate.elected();
    await standing(other, 2);
    expect(zk.epoch).toBe(2);
  });

  it('protocols 18: a process whose event loop stood still for longer than the lease is no leader in the same turn, before any timer could say so', async () => {
    const zk = await client({ sessionTimeoutMs: 1000 });
    const candidate = new Candidate(zk, 'a');
    const term = await candidate.elected();
    expect(term.isLeader()).toBe(true);
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 800);
    expect([zk.leaseLeft(), term.isLeader(), term.ended.aborted]).toEqual([0, false, true]);
    // The session may live on: the term stays over, and the next has an epoch of its own.
    await zk.settle();
    expect(term.isLeader()).toBe(false);
    expect((await candidate.elected()).epoch).toBe(2);
  });
});
