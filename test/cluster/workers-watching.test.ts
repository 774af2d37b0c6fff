import { job } from 'millrace';
import { describe, expect, it } from 'vitest';
import { definitionOf } from '../../src/api/job.ts';
import type { HostMail, LeaderMail } from '../../src/cluster/host-mail.ts';
import type { StandingHost } from '../../src/cluster/standing.ts';
import type { Link } from '../../src/cluster/transport/link.ts';
import { localLinks } from '../../src/cluster/transport/local-link.ts';
import { RemoteChannels } from '../../src/cluster/transport/remote-channel.ts';
import { Workers, type WorkersOptions } from '../../src/cluster/workers.ts';
import { MillraceError } from '../../src/errors.ts';
import type { PartOptions } from '../../src/execution/region-part.ts';
import { tasksOfRegion } from '../../src/execution/region-tasks.ts';
import { SILENT } from '../../src/graph/context.ts';
import { buildGraph } from '../../src/graph/plan.ts';
import { systemIo } from '../../src/runtime/io.ts';
import { Feed, rejection } from '../protocols/lab.ts';

const definition = definitionOf(
  job('watched', (env) => {
    env.source('in', new Feed()).forEach('out', () => {});
  }),
);

/** Of its only region. */
function part(parallelism: number, attempt = 1): PartOptions {
  return {
    job: 'watched',
    graph: buildGraph(definition.build(), { parallelism, version: undefined }),
    number: 0,
    attempt,
    lastCheckpoint: () => undefined,
    usedIds: { after: undefined, to: 0 },
    io: systemIo(),
    log: SILENT,
    reports: () => ({ failed: () => {} }),
  } as unknown as PartOptions;
}

interface Settings {
  readonly workers: number;
  readonly stallMs?: number;
  /** What a host does with what it is told; by default it opens whatever it is to. */
  readonly hear?: (mail: LeaderMail, tell: (mail: HostMail) => void) => void;
  readonly join?: (tried: number) => void;
  /** What goes on at a worker of a leader that is gone. */
  readonly standing?: (worker: string) => readonly StandingHost[];
  /** What a worker says of a host that has ended. */
  readonly cause?: Error;
}

const opens: NonNullable<Settings['hear']> = (mail, tell) => {
  if (mail.kind === 'open') tell({ kind: 'opened', part: mail.part });
  else if (mail.kind === 'close') tell({ kind: 'closed', part: mail.part });
  else if (mail.kind === 'ask') tell({ kind: 'answer', ask: mail.ask, value: [] });
};

/** Members whose hosts do what the test says, and end when the leader does not want them any more. */
function workers({ workers: count, stallMs, hear = opens, join = () => {}, standing = () => [], cause }: Settings) {
  const members = Array.from({ length: count }, (_, i) => ({
    id: String(i),
    address: `worker ${i}`,
    slots: 1,
    version: '',
    plans: { watched: 'p' },
    needs: {},
    doors: {},
  }));
  const begun: { readonly worker: string; readonly host: number }[] = [];
  const ended: number[] = [];
  const settled: string[] = [];
  const away = new Set<string>();
  const waiting = new Set<() => void>();
  const links: Link[] = [];
  let joins = 0;
  const linked = (host: number) => {
    const [ours, theirs] = localLinks('leader', `host ${host}`);
    const channels = new RemoteChannels(theirs, { mail: (mail) => hear(mail as LeaderMail, (answer) => channels.tell(answer)) });
    links.push(theirs);
    return { link: ours, ended: theirs.closed, cause: () => cause };
  };
  const worker = {
    id: '0',
    members: () => members,
    reaches: (id: string) => !away.has(id),
    changed: (signal: AbortSignal) =>
      new Promise<void>((resolve) => {
        waiting.add(resolve);
        signal.addEventListener('abort', () => resolve(), { once: true });
      }),
    standing: async (to: string) => standing(to),
    settle: async (to: string, _: unknown, kept: readonly { readonly host: number }[]) => {
      settled.push(`${to}: ${kept.length}`);
      return new Map(kept.map(({ host }) => [host, linked(host)]));
    },
    beginHost: async (to: string, { host }: { readonly host: number }) => {
      begun.push({ worker: to, host });
      return linked(host);
    },
    joinHosts: async () => join(++joins),
    endHost: (_: string, { host }: { readonly host: number }) => void ended.push(host),
  } as unknown as WorkersOptions['worker'];
  /** Those are connected no more, the others are. */
  const apart = (...ids: string[]): void => {
    away.clear();
    for (const id of ids) away.add(id);
    for (const wake of waiting) wake();
    waiting.clear();
  };
  return { begun, ended, links, settled, apart, hosts: new Workers({ worker, job: 'watched', planHash: 'p', epoch: 1, io: systemIo(), log: SILENT, stallMs }) };
}

describe('hosts as their leader watches them', () => {
  it('are ended when they answer nothing any more, also while the job ends: whoever waits for them then is answered', async () => {
    const { hosts, begun, ended } = workers({
      workers: 1,
      stallMs: 200,
      hear: (mail, tell) => {
        if (mail.kind === 'open') tell({ kind: 'opened', part: mail.part });
      },
    });
    const [only] = await hosts.parts(part(1));
    hosts.cease();
    await only!.close();
    expect(ended).toEqual([begun[0]!.host]);
    await hosts.close();
  });

  it('are not ended when it was held up itself for longer than they may be silent', async () => {
    const { hosts, ended } = workers({ workers: 1, stallMs: 400 });
    const [only] = await hosts.parts(part(1));
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1000);
    await only!.samples();
    expect(ended).toEqual([]);
    await only!.close();
    expect(ended).toEqual([]);
    await hosts.close();
  });

  it('that older leaders have begun end with the first word of a worker that comes, or comes back', async () => {
    const { hosts, settled, apart } = workers({ workers: 2 });
    apart('1');
    const [only] = await hosts.parts(part(1));
    expect(settled).toEqual(['0: 0']);
    for (const away of [[], ['1'], []]) {
      apart(...away);
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(settled).toEqual(['0: 0', '1: 0', '1: 0']);
    await only!.close();
    await hosts.close();
  });

  it('that a leader takes over are held as if it had begun them; where one is lost before its parts are, the others close theirs', async () => {
    const heard: string[] = [];
    const asked = part(2);
    const placement = new Map([...tasksOfRegion(asked.graph, 0)].map(({ name, subtask }) => [name, 1000 + subtask]));
    const { hosts, links, settled } = workers({
      workers: 2,
      hear: (mail, tell) => {
        heard.push(mail.kind);
        opens(mail, tell);
      },
      standing: (at) => [
        {
          host: 1000 + Number(at),
          epoch: 0,
          peers: new Map([[1001 - Number(at), 7]]),
          parts: [
            {
              ...{ name: '0/1', region: 0, attempt: 1, lineage: 'l', planHash: asked.graph.plan.hash, parallelism: 2, maxParallelism: 128, placement },
              markers: new Map([...placement].filter(([, host]) => host === 1000 + Number(at)).map(([task]) => [task, 0])),
            },
          ],
        },
      ],
    });
    const question = { graph: asked.graph, lineage: 'l', begun: new Map([[0, 1]]) };
    expect([...(await hosts.standing(question)).keys()]).toEqual([0]);
    expect(await hosts.settle(new Set([0]))).toEqual(new Set([0]));
    expect(settled.slice(0, 2)).toEqual(['0: 1', '1: 1']);
    const [one, other] = hosts.kept(asked);
    expect(one!.tell('nobody', { kind: 'abort', id: 1 })).toBe(false);
    expect([...placement.keys()].map((task) => [one, other].filter((each) => each!.tell(task, { kind: 'abort', id: 1 })).length)).toEqual([1, 1]);
    const gone = new Promise<string>((resolve) => hosts.onGone(resolve));
    links[1]!.close();
    expect(await gone).toBe('1');
    expect(() => hosts.kept(asked)).toThrow('was lost while another leader took over');
    await Promise.all([one!.close(), other!.close()]);
    expect(heard.filter((kind) => kind === 'close')).toHaveLength(2);
    await hosts.close();
  });

  it('have numbers of their own, also where the leader starts the job again in the same term', async () => {
    const numbers: number[] = [];
    for (let tried = 1; tried <= 2; tried += 1) {
      const { hosts, begun } = workers({ workers: 2 });
      const parts = await hosts.parts(part(2));
      numbers.push(...begun.map(({ host }) => host));
      await Promise.all(parts.map((each) => each.close()));
      await hosts.close();
    }
    expect(new Set(numbers).size).toBe(4);
  });

  it('that are busy when they are to be joined are joined by the next try, and their workers are not kept apart', async () => {
    const busy = new MillraceError('HOST_LOST', 'One of them gave no turn.');
    const { hosts, begun } = workers({
      workers: 3,
      join: (tried) => {
        if (tried === 1) throw busy;
      },
    });
    const first = await hosts.parts(part(2));
    // The same two have been asked again: a third one would have done.
    expect(begun).toHaveLength(2);
    expect(hosts.lost(busy)).toBe(true);
    await Promise.all(first.map((each) => each.close()));
    await hosts.close();
  });

  it('that cannot reach each other are on workers that are kept apart, where others have slots', async () => {
    const { hosts, begun } = workers({
      workers: 3,
      join: (tried) => {
        if (tried === 1) throw new MillraceError('LINK_LOST', 'There is no connection.');
      },
    });
    const parts = await hosts.parts(part(2));
    expect(begun).toHaveLength(3);
    await Promise.all(parts.map((each) => each.close()));
    await hosts.close();
  });
});

describe('workers', () => {
  const gone = async (settings: Partial<Settings>): Promise<readonly string[]> => {
    const { hosts, links } = workers({ workers: 2, ...settings });
    const told: string[] = [];
    hosts.onGone((worker) => told.push(worker));
    expect(hosts.workers()).toBe(2);
    const [one, other] = await hosts.parts(part(2));
    links[1]!.close();
    // Resolves when the loss is known.
    await other!.close();
    await one!.close();
    await hosts.close();
    return told;
  };

  it('that go are told of, each process once; those whose worker says that a thread has failed, and those that end with the job, are not', async () => {
    expect(await gone({})).toEqual(['1']);
    expect(await gone({ cause: new MillraceError('HOST_LOST', 'The thread of host-2 has ended.') })).toEqual([]);
  });

  it('that never say that a part is closed are waited for no longer than a while, and that is said', async () => {
    const timers: (() => void)[] = [];
    const clock = { now: () => 0, setTimeout: (fn: () => void) => timers.push(fn), clearTimeout() {} };
    const said: string[] = [];
    const log = { ...SILENT, warn: (fields: object | string) => void said.push(JSON.stringify(fields)) };
    const { hosts } = workers({
      workers: 1,
      hear: (mail, tell) => {
        if (mail.kind !== 'close') opens(mail, tell);
      },
    });
    const [only] = await hosts.parts({ ...part(1), io: { ...systemIo(), clock }, log });
    const closing = only!.close();
    expect(said).toEqual([]);
    timers.at(-1)!();
    await closing;
    expect(said.join()).toContain('has not closed what it ran of region 0/1 within 15 s');
    await hosts.close();
  });
});

describe('a leader whose job has ended', () => {
  it('gets no hosts any more', async () => {
    const { hosts } = workers({ workers: 1 });
    hosts.cease();
    expect(await rejection(hosts.parts(part(1)))).toMatchObject({ code: 'JOB_ENDED' });
    await hosts.close();
  });

  it('waits for no host that is opening, which ends with the job', async () => {
    const { hosts, links } = workers({ workers: 1, hear: () => {} });
    const opening = rejection(hosts.parts(part(1)));
    while (links.length === 0) await new Promise((resolve) => setImmediate(resolve));
    hosts.cease();
    expect(await opening).toMatchObject({ code: 'JOB_ENDED' });
    await hosts.close();
    await links[0]!.closed;
  });
});
