import { type Job, job, memory, type Sink } from 'millrace';
import { describe, expect, it, onTestFinished } from 'vitest';
import { definitionOf } from '../../src/api/job.ts';
import { Host } from '../../src/cluster/host.ts';
import type { HostMail, LeaderMail } from '../../src/cluster/host-mail.ts';
import { linkLost } from '../../src/cluster/transport/link.ts';
import { localLinks } from '../../src/cluster/transport/local-link.ts';
import { RemoteChannels } from '../../src/cluster/transport/remote-channel.ts';
import { type PlannedTask, tasksOfRegion } from '../../src/execution/region-tasks.ts';
import { buildGraph } from '../../src/graph/plan.ts';
import { operatorOf } from '../../src/operators/operator-of.ts';
import { systemIo } from '../../src/runtime/io.ts';
import type { Backend, RegionState } from '../../state-backends/contract.ts';
import { Conditions, Feed } from '../protocols/lab.ts';

function deferred<T>(): { readonly promise: Promise<T>; readonly resolve: (value: T) => void } {
  let resolve!: (value: T) => void;
  const promise = new Promise<T>((done) => {
    resolve = done;
  });
  return { promise, resolve };
}

/** Keyed state in memory of which the test sees each region's, by its number, as it opens and closes. */
class Watched implements Backend {
  readonly kind = 'memory';
  readonly opened: string[] = [];
  readonly closed: string[] = [];
  before: (what: 'open' | 'close', region: string) => void | Promise<void> = () => {};

  async open(options: { readonly name: string; readonly tracked: boolean }): Promise<RegionState> {
    const region = options.name.split('-')[1]!;
    await this.before('open', region);
    this.opened.push(region);
    const state = await (memory() as Backend).open(options);
    const close = state.close.bind(state);
    state.close = async () => {
      await this.before('close', region);
      this.closed.push(region);
      await close();
    };
    return state;
  }
}

/** A host of that job, and the end of its leader, which is the test's. */
function hostOf(of: Job, aloneMs = 0, at: (task: PlannedTask) => number = () => 0) {
  const definition = definitionOf(of);
  const graph = buildGraph(definition.build(), { parallelism: 1, version: undefined });
  const backend = new Watched();
  const [ours, theirs] = localLinks('leader', 'host');
  const heard: HostMail[] = [];
  const said: string[] = [];
  const conditions = new Conditions();
  const channels = new RemoteChannels(ours, {
    mail: (message) => {
      heard.push(message as HostMail);
      conditions.changed();
    },
  });
  const warn = (fields: unknown, text?: string): void => void said.push(`${text} ${JSON.stringify(fields)}`);
  const host = new Host({
    job: definition,
    operators: operatorOf,
    number: 0,
    backend,
    storage: undefined,
    io: systemIo(),
    leader: theirs,
    aloneMs,
    log: { debug() {}, info() {}, warn, error: warn },
  });
  const tell = (mail: LeaderMail): void => channels.tell(mail);
  const open = (region: number, attempt: number): void => {
    const placement = new Map(tasksOfRegion(graph, region).map((task) => [task.name, at(task)]));
    const request = {
      region,
      attempt,
      lineage: 'l',
      parallelism: 1,
      version: undefined,
      planHash: graph.plan.hash,
      maxParallelism: 128,
      blocking: false,
      watermarkEachBatch: false,
      metadata: undefined,
      usedIds: { after: undefined, to: 0 },
      lastCheckpoint: undefined,
      placement,
    };
    tell({ kind: 'open', part: `${region}/${attempt}`, request });
  };
  /** Its tasks run. */
  const start = async (region: number, attempt: number): Promise<void> => {
    const part = `${region}/${attempt}`;
    tell({ kind: 'start', part });
    for (const { name, vertex } of tasksOfRegion(graph, region).filter((task) => at(task) === 0)) {
      await until((mail) => mail.kind === 'report' && mail.task === name && mail.report === 'opened');
      const splits = { known: new Set<string>(), ended: new Map(), counts: new Array<number>(vertex.parallelism).fill(0) };
      tell({ kind: 'mail', part, task: name, mail: { kind: 'go', splits } });
    }
  };
  const until = async (is: (mail: HostMail) => boolean): Promise<HostMail> => {
    await conditions.until(() => heard.some(is));
    return heard.find(is)!;
  };
  onTestFinished(async () => {
    ours.close();
    host.end();
    await host.ended;
  });
  const dies = (): void => ours.close(linkLost('host', 'the leader has died'));
  /** Another leader, which goes on with these parts. */
  const adopted = async (...parts: string[]): Promise<typeof tell> => {
    const [mine, its] = localLinks('next leader', 'host');
    const next = new RemoteChannels(mine, {
      mail: (message) => {
        heard.push(message as HostMail);
        conditions.changed();
      },
    });
    host.adopt(its, parts);
    return (mail) => next.tell(mail);
  };
  return { host, backend, heard, said, conditions, tell, open, start, until, dies, adopted, leave: () => ours.close() };
}

const discard = (): Sink<unknown> => ({ open: () => ({ write() {} }) }) as unknown as Sink<unknown>;
/** As many regions as feeds. */
const regions = (...feeds: Feed<number>[]): Job =>
  job('regions', (env) => {
    for (const [i, feed] of feeds.entries()) env.source(`in-${i}`, feed).forEach(`out-${i}`, () => {});
  });
const opened = (part: string) => (mail: HostMail) => mail.kind === 'opened' && mail.part === part;
const closed = (part: string) => (mail: HostMail) => mail.kind === 'closed' && mail.part === part;

describe('a host', () => {
  it('opens no attempt of a region that is older than one it has seen', async () => {
    const { open, until, backend, tell } = hostOf(regions(new Feed(), new Feed()));
    open(0, 5);
    await until(opened('0/5'));
    open(0, 4);
    expect(await until((mail) => mail.kind === 'refused')).toMatchObject({ part: '0/4', error: { message: expect.stringContaining('attempt 5') } });
    // Of another region it does.
    open(1, 4);
    await until(opened('1/4'));
    expect(backend.opened).toEqual(['0', '1']);
    tell({ kind: 'close', part: '0/5' });
    await until(closed('0/5'));
  });

  it('that has no leader any more closes what it can, whatever becomes of one part, and says so to its own process', async () => {
    const { host, open, until, backend, leave, said } = hostOf(regions(new Feed(), new Feed()));
    open(0, 1);
    open(1, 1);
    await until(opened('1/1'));
    backend.before = (what, region) => {
      if (what === 'close' && region === '0') throw new Error('The disk is gone.');
    };
    leave();
    await host.ended;
    expect(backend.closed).toEqual(['1']);
    expect(said.join()).toContain('The disk is gone.');
  });

  it('gives signs of life while the state of a part takes its time to open', async () => {
    const { open, until, backend, tell } = hostOf(regions(new Feed()));
    const gate = deferred<void>();
    backend.before = () => gate.promise;
    open(0, 1);
    tell({ kind: 'ask', ask: -1, what: 'beat' });
    await until((mail) => mail.kind === 'answer' && mail.ask === -1);
    expect(backend.opened).toEqual([]);
    gate.resolve();
    await until(opened('0/1'));
  });

  it('closes the state of a part when its tasks have ended, not before, however early it is told', async () => {
    const gate = deferred<void>();
    const writing = deferred<void>();
    const order: string[] = [];
    const feed = new Feed<number>().push([1]);
    const slow = job('slow', (env) => {
      env.source('in', feed).forEach('out', async () => {
        writing.resolve();
        await gate.promise;
        order.push('written');
      });
    });
    const { open, until, backend, tell, start, heard } = hostOf(slow);
    backend.before = (what) => void order.push(what);
    open(0, 1);
    await until(opened('0/1'));
    await start(0, 1);
    await writing.promise;
    tell({ kind: 'stop', part: '0/1' });
    tell({ kind: 'close', part: '0/1' });
    tell({ kind: 'ask', ask: 7, what: 'beat' });
    await until((mail) => mail.kind === 'answer' && mail.ask === 7);
    expect(heard.some(closed('0/1'))).toBe(false);
    gate.resolve();
    await until(closed('0/1'));
    expect(order).toEqual(['open', 'written', 'close']);
  });

  it('lets no part wait for one that does not close: it opens, closes and ends others meanwhile', async () => {
    const { host, open, until, backend, tell, leave, heard } = hostOf(regions(new Feed(), new Feed(), new Feed()));
    const disk = deferred<void>();
    const others = deferred<void>();
    let closing = 0;
    backend.before = (what, region) => {
      if (what === 'close' && region !== '0' && ++closing === 3) others.resolve();
      return what === 'close' && region === '0' ? disk.promise : undefined;
    };
    open(0, 1);
    open(1, 1);
    await until(opened('1/1'));
    tell({ kind: 'close', part: '0/1' });
    open(0, 2);
    await until(opened('0/2'));
    tell({ kind: 'close', part: '1/1' });
    await until(closed('1/1'));
    expect(heard.some(closed('0/1'))).toBe(false);
    open(1, 2);
    open(2, 1);
    await until(opened('2/1'));
    leave();
    await others.promise;
    disk.resolve();
    await host.ended;
    expect(backend.closed.toSorted()).toEqual(['0', '0', '1', '1', '2']);
  });

  it('closes a link to another host that is replaced, and all of them when its leader is gone', async () => {
    const { host, leave } = hostOf(regions(new Feed()));
    const [[one, first], [two, second]] = [localLinks('a', 'b'), localLinks('a', 'b')];
    for (const link of [first, second]) link.receive(() => {});
    host.join(1, one, 1);
    host.join(1, two, 2);
    expect(await first.closed).toBeUndefined();
    leave();
    await Promise.all([second.closed, host.ended]);
  });

  it('sends what user code says as far as it can be sent: what cannot be is described, and fails nothing', async () => {
    const feed = new Feed<{ readonly n: number; act(): number }>().push([1, 2].map((n) => ({ n, act: () => n }))).end();
    const odd = job('odd', (env) => {
      env
        .source('in', feed)
        .process<number>('refuses', {
          onRecord(record, ctx) {
            ctx.log.warn({ act: record.act, symbol: Symbol('s'), bare: Object.create(null) }, 'said');
            throw new TypeError('no');
          },
        })
        .onError('skip')
        .sink('out', discard());
    });
    const { open, until, start, heard } = hostOf(odd);
    open(0, 1);
    await until(opened('0/1'));
    await start(0, 1);
    await until((mail) => mail.kind === 'report' && mail.report === 'ended');
    const letters = heard.flatMap((mail) => (mail.kind === 'letter' ? [mail.letter] : []));
    expect(letters).toMatchObject([
      { uid: 'refuses', record: expect.stringContaining('object: { n: 1, act: [Function'), error: { message: 'no' } },
      { uid: 'refuses', record: expect.stringContaining('n: 2') },
    ]);
    const words = heard.flatMap((mail) => (mail.kind === 'log' && mail.text === 'said' ? [mail.fields] : []));
    expect(words).toHaveLength(2);
    expect(words[0]).toMatchObject({ act: expect.stringContaining('=>'), symbol: 'Symbol(s)', bare: 'something that cannot be shown' });
    expect(heard.filter((mail) => mail.kind === 'report' && mail.report === 'failed')).toEqual([]);
  });
});

describe('a host whose leader has died', () => {
  /** A record that is skipped for each number; it says what it has seen. */
  const saw = new Conditions();
  const skipping = (feed: Feed<number>, seen: number[]): Job =>
    job('skipping', (env) => {
      env
        .source('in', feed)
        .map((n) => {
          seen.push(n);
          saw.changed();
          if (n % 2 === 1) throw new Error(`odd ${n}`);
          return n;
        })
        .onError('skip')
        .forEach('out', () => {});
    });
  const letters = (heard: readonly HostMail[]) => heard.flatMap((mail) => (mail.kind === 'letter' ? [mail.letter.record] : []));

  it('lets its tasks go on; another leader goes on with them, and is told in order what they had to say meanwhile', async () => {
    const feed = new Feed<number>();
    const seen: number[] = [];
    const { host, conditions, open, until, start, dies, adopted, heard, backend } = hostOf(skipping(feed, seen), 60_000);
    open(0, 1);
    await until(opened('0/1'));
    await start(0, 1);
    feed.push([1]);
    await until((mail) => mail.kind === 'letter');
    dies();
    const { parts } = host.standing();
    feed.push([2, 3]).push([5]);
    await saw.until(() => seen.length === 4);
    expect(parts).toMatchObject([{ name: '0/1', region: 0, attempt: 1, lineage: 'l', maxParallelism: 128 }]);
    expect([...parts[0]!.markers.keys()]).toEqual([...parts[0]!.placement.keys()]);
    expect(letters(heard)).toEqual([1]);
    const tell = await adopted('0/1');
    feed.push([7]);
    await saw.until(() => seen.length === 5);
    expect(letters(heard)).toEqual([1]);
    tell({ kind: 'resume', part: '0/1' });
    await conditions.until(() => letters(heard).length === 4);
    expect(letters(heard)).toEqual([1, 3, 5, 7]);
    expect(backend.closed).toEqual([]);
    tell({ kind: 'stop', part: '0/1' });
    tell({ kind: 'close', part: '0/1' });
    await until(closed('0/1'));
    expect(backend.opened).toEqual(['0']);
  });

  it('says nothing of parts that have lost the link to another host of theirs, whoever was told of that', async () => {
    const feed = new Feed<number>().push([1]);
    const keyed = job('keyed', (env) => {
      env
        .source('in', feed)
        .keyBy((n) => n)
        .forEach('out', () => {});
    });
    const { host, open, until, start, dies } = hostOf(keyed, 60_000, ({ vertex }) => (vertex.index === 1 ? 1 : 0));
    const [ours, theirs] = localLinks('host 0', 'host 1');
    theirs.receive(() => {});
    host.join(1, ours, 1);
    open(0, 1);
    await until(opened('0/1'));
    await start(0, 1);
    await feed.taken();
    theirs.close();
    await until(({ kind }) => kind === 'unlinked');
    dies();
    expect(host.standing().parts).toEqual([]);
  });

  it('closes the parts that nobody goes on with, and ends when it is told to', async () => {
    const gone = deferred<void>();
    const feeds = [new Feed<number>().push([1]), new Feed<number>().push([1])];
    const { host, open, until, start, dies, adopted, backend } = hostOf(regions(...feeds), 60_000);
    for (const [region, feed] of feeds.entries()) {
      open(region, 1);
      await until(opened(`${region}/1`));
      await start(region, 1);
      await feed.taken();
    }
    dies();
    expect(host.standing().parts.map(({ name }) => name)).toEqual(['0/1', '1/1']);
    backend.before = (what) => void (what === 'close' && gone.resolve());
    await adopted('1/1');
    await gone.promise;
    expect(backend.closed).toEqual([]);
    await Promise.resolve();
    expect(backend.closed).toEqual(['0']);
    host.end();
    await host.ended;
    expect(backend.closed).toEqual(['0', '1']);
  });

  it('ends where nobody comes in time, where nothing of it is whole, and where it is to go on with nothing', async () => {
    const feed = new Feed<number>().push([1]);
    const late = hostOf(regions(feed), 50);
    late.open(0, 1);
    await late.until(opened('0/1'));
    await late.start(0, 1);
    await feed.taken();
    late.dies();
    await late.host.ended;
    expect(late.backend.closed).toEqual(['0']);
    const opening = hostOf(regions(new Feed()), 60_000);
    opening.open(0, 1);
    await opening.until(opened('0/1'));
    opening.dies();
    await opening.host.ended;
    expect(opening.host.standing().parts).toEqual([]);
    const alone = hostOf(regions(new Feed()));
    alone.open(0, 1);
    await alone.until(opened('0/1'));
    await alone.start(0, 1);
    alone.dies();
    await alone.host.ended;
  });

  it('goes on with no part that has failed; of one that fails before it is resumed that is told then', async () => {
    const threw = deferred<void>();
    const feed = new Feed<number>();
    const failing = job('failing', (env) => {
      env
        .source('in', feed)
        .map((n) => {
          if (n === 13) threw.resolve();
          if (n === 13) throw new Error('thirteen');
          return n;
        })
        .forEach('out', () => {});
    });
    const failed = (mail: HostMail): boolean => mail.kind === 'report' && mail.report === 'failed';
    const first = hostOf(failing, 60_000);
    first.open(0, 1);
    await first.until(opened('0/1'));
    await first.start(0, 1);
    feed.push([1]);
    await feed.taken();
    first.dies();
    expect(first.host.standing().parts).toHaveLength(1);
    const tell = await first.adopted('0/1');
    feed.push([13]);
    await threw.promise;
    expect(first.heard.some(failed)).toBe(false);
    tell({ kind: 'resume', part: '0/1' });
    expect(await first.until(failed)).toMatchObject({ part: '0/1', report: 'failed' });
    await expect(first.adopted('0/1')).rejects.toMatchObject({ code: 'HOST_LOST' });
  });
});
