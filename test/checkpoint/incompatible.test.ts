import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  broadcastMap,
  count,
  type Job,
  job,
  list,
  map,
  process,
  type RunOptions,
  type Stream,
  session,
  sliding,
  splitList,
  sum,
  tumbling,
  type,
  unionList,
  value,
} from 'millrace';
import { collect } from 'millrace/connectors';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { VERIFY } from '../../src/api/job.ts';
import type { Verdict } from '../../src/checkpoint/verify.ts';
import { checkpointsIn, Feed, Store } from '../protocols/lab.ts';

// Each kind of change that a program cannot take over a snapshot with: `state verify` and a start say the same, in a sentence that says what to do. What verify.test.ts
// has of values, lists and maps is not repeated here.

interface Click {
  readonly user: string;
  readonly at: number;
}
type Part = (clicks: Stream<Click>, stores: Stores) => void;
type Stores = (uid: string) => Store<unknown>;
const INTO = collect([] as unknown[]);
const byUser = (clicks: Stream<Click>) => clicks.keyBy(({ user }) => user);

const PARTS = {
  versioned: (
    state: Record<string, unknown> = { last: value<number>({ version: 3 }), pages: list<number>({ version: 3 }), seen: map<string, number>({ version: 3 }) },
  ) =>
    ((clicks) => {
      const operator = {
        state,
        onRecord({ user, at }: Click, ctx: { state: Record<string, { set?(...of: unknown[]): void; add?(n: number): void }> }) {
          ctx.state.last?.set?.(at);
          ctx.state.pages?.add?.(at);
          ctx.state.seen?.set?.(user, at);
        },
      };
      byUser(clicks)
        .process('versioned', operator as never)
        .sink('versioned-out', INTO);
    }) as Part,
  sum: ((clicks) =>
    void byUser(clicks)
      .aggregate(
        'sum',
        sum(({ at }: Click) => at),
      )
      .sink('sum-out', INTO)) as Part,
  tumbled: (of = tumbling(10_000)) =>
    ((clicks) =>
      void byUser(clicks)
        .window(of as never)
        .aggregate(
          'tumbled',
          sum(({ at }: Click) => at),
        )
        .sink('tumbled-out', INTO)) as Part,
  sessions: (of: unknown = session(5000)) =>
    ((clicks) =>
      void byUser(clicks)
        .window(of as never)
        .aggregate('sessions', count())
        .sink('sessions-out', INTO)) as Part,
  lists: (state: Record<string, unknown> = { mine: splitList<number>({ version: 2 }) }) =>
    ((clicks) => {
      const operator = {
        state,
        onRecord({ at }: Click, ctx: { state: { mine?: { add?(n: number): void } } }) {
          ctx.state.mine?.add?.(at);
        },
      };
      clicks.process('lists', operator as never).sink('lists-out', INTO);
    }) as Part,
  rules: (state: Record<string, unknown> = { rules: broadcastMap<string, number>({ version: 2 }) }) =>
    ((clicks) =>
      void clicks
        .connect(clicks.broadcast())
        .process('rules', {
          emits: type<number>(),
          state,
          onLeft() {},
          onRight({ user, at }: Click, ctx: { state: { rules?: { set(key: string, n: number): void } } }) {
            ctx.state.rules?.set(user, at);
          },
        } as never)
        .sink('rules-out', INTO)) as Part,
  joined: ((clicks) =>
    void byUser(clicks)
      .intervalJoin('joined', byUser(clicks), { lower: -1000, upper: 1000 } as never, (left: Click, right: Click) => left.at + right.at)
      .sink('joined-out', INTO)) as Part,
  pending: (uid = 'pending') => ((clicks, stores) => void clicks.sink(uid, stores(uid))) as Part,
} satisfies Record<string, Part | ((...of: never[]) => Part)>;

const before = (): Record<string, Part> => ({
  versioned: PARTS.versioned(),
  sum: PARTS.sum,
  tumbled: PARTS.tumbled(),
  sessions: PARTS.sessions(),
  lists: PARTS.lists(),
  rules: PARTS.rules(),
  joined: PARTS.joined,
  pending: PARTS.pending(),
});
const but = (changed: Record<string, Part | undefined>): Part[] =>
  Object.values({ ...before(), ...changed }).filter((part): part is Part => part !== undefined);

function program(parts: readonly Part[], { feed = new Feed<Click>({ bounded: false }), source = 'in' } = {}): Job {
  const stores = new Map<string, Store<unknown>>();
  const of: Stores = (uid) => stores.get(uid) ?? stores.set(uid, new Store<unknown>()).get(uid)!;
  return job('clicks', (env) => {
    const clicks = env.source(source, feed, { timestamp: ({ at }) => at });
    for (const part of parts) part(clicks, of);
  });
}

const folder = mkdtempSync(join(tmpdir(), 'millrace-'));
const path = join(folder, 'saved');
afterAll(() => rmSync(folder, { recursive: true, force: true }));
beforeAll(async () => {
  const feed = new Feed<Click>({ bounded: false });
  const running = await program(but({}), { feed }).start({ checkpoints: checkpointsIn(folder) });
  running.finished.catch(() => {});
  await feed.push(['ada', 'bob', 'cy'].map((user, at) => ({ user, at }))).taken();
  await running.savepoint(path);
  await running.cancel();
});

const verified = (to: Job, options: RunOptions): Promise<Verdict> =>
  (to as unknown as { [VERIFY](options: RunOptions, path: string): Promise<Verdict> })[VERIFY](options, path);

async function started(to: Job, options: RunOptions): Promise<string | undefined> {
  const place = mkdtempSync(join(tmpdir(), 'millrace-'));
  try {
    const running = await to.start({ checkpoints: checkpointsIn(place), restarts: false, restore: { from: path }, ...options });
    running.finished.catch(() => {});
    await running.cancel();
    return undefined;
  } catch (error) {
    return (error as { code: string }).code;
  } finally {
    rmSync(place, { recursive: true, force: true });
  }
}

interface Change {
  readonly said: string;
  readonly parts: readonly Part[];
  readonly source?: string;
  readonly options?: RunOptions;
  /** uid, or uid/state. */
  readonly refused: string;
  readonly sentence: RegExp;
  readonly todo: RegExp;
  readonly code: string;
}
const old = { migrate: (n: unknown) => n as never };

const CHANGES: readonly Change[] = [
  ...(['last', 'pages', 'seen'] as const).map((name): Change => {
    const kinds = {
      last: value<number>({ version: 2, ...old }),
      pages: list<number>({ version: 2, ...old }),
      seen: map<string, number>({ version: 2, ...old }),
    };
    const declared = {
      last: value<number>({ version: 3 }),
      pages: list<number>({ version: 3 }),
      seen: map<string, number>({ version: 3 }),
      [name]: kinds[name],
    };
    return {
      said: `a lower version of ${name}, which an older program has`,
      parts: but({ versioned: PARTS.versioned(declared) }),
      refused: `versioned/${name}`,
      sentence: /stored in version 3 and is declared in version 2, which is older/,
      todo: /program that wrote it.*higher version/,
      code: 'SNAPSHOT_INCOMPATIBLE',
    };
  }),
  {
    said: 'a higher version without migrate of a split list',
    parts: but({ lists: PARTS.lists({ mine: splitList<number>({ version: 3 }) }) }),
    refused: 'lists',
    sentence: /stored in version 2 and is declared in version 3/,
    todo: /Declare `migrate`/,
    code: 'SNAPSHOT_INCOMPATIBLE',
  },
  {
    said: 'a lower version of a split list',
    parts: but({ lists: PARTS.lists({ mine: splitList<number>({ version: 1, ...old }) }) }),
    refused: 'lists',
    sentence: /stored in version 2 and is declared in version 1, which is older/,
    todo: /program that wrote it/,
    code: 'SNAPSHOT_INCOMPATIBLE',
  },
  {
    said: 'a split list that becomes a union list',
    parts: but({ lists: PARTS.lists({ mine: unionList<number>({ version: 2 }) }) }),
    refused: 'lists',
    sentence: /was stored as splitList and is declared as unionList/,
    todo: /another name/,
    code: 'SNAPSHOT_INCOMPATIBLE',
  },
  {
    said: 'a state without keys that is gone',
    parts: but({ lists: PARTS.lists({ other: splitList<number>() }) }),
    refused: 'lists/mine',
    sentence: /no state 'mine' any more/,
    todo: /Bring it back/,
    code: 'RESTORE_STATE_UNCLAIMED',
  },
  {
    said: 'a lower version of a broadcast map',
    parts: but({ rules: PARTS.rules({ rules: broadcastMap<string, number>({ version: 1, ...old }) }) }),
    refused: 'rules',
    sentence: /version 2 and is declared in version 1, which is older/,
    todo: /program that wrote it/,
    code: 'SNAPSHOT_INCOMPATIBLE',
  },
  {
    said: 'an aggregate that becomes a window of the same uid',
    parts: but({
      sum: (clicks) =>
        void byUser(clicks)
          .window(tumbling(1000))
          .aggregate(
            'sum',
            sum(({ at }: Click) => at),
          )
          .sink('sum-out', INTO),
    }),
    refused: 'sum/value',
    sentence: /no state 'value' any more/,
    todo: /Bring it back/,
    code: 'RESTORE_STATE_UNCLAIMED',
  },
  {
    said: 'a window that becomes an aggregate of the same uid',
    parts: but({
      tumbled: (clicks) =>
        void byUser(clicks)
          .aggregate(
            'tumbled',
            sum(({ at }: Click) => at),
          )
          .sink('tumbled-out', INTO),
    }),
    refused: 'tumbled/slices',
    sentence: /no state 'slices' any more/,
    todo: /Bring it back/,
    code: 'RESTORE_STATE_UNCLAIMED',
  },
  {
    said: 'windows of another size',
    parts: but({ tumbled: PARTS.tumbled(tumbling(20_000)) }),
    refused: 'tumbled',
    sentence: /were tumbling\(10000\).* and are tumbling\(20000\)/,
    todo: /another uid/,
    code: 'SNAPSHOT_INCOMPATIBLE',
  },
  {
    said: 'windows of another kind',
    parts: but({ tumbled: PARTS.tumbled(sliding(10_000, 1000) as never) }),
    refused: 'tumbled',
    sentence: /were tumbling\(10000\).* and are sliding/,
    todo: /another uid/,
    code: 'SNAPSHOT_INCOMPATIBLE',
  },
  {
    said: 'windows that are shifted',
    parts: but({ tumbled: PARTS.tumbled(tumbling(10_000, { offset: 500 })) }),
    refused: 'tumbled',
    sentence: /shifted by 500/,
    todo: /another uid/,
    code: 'SNAPSHOT_INCOMPATIBLE',
  },
  {
    said: 'windows in another time',
    parts: but({ tumbled: PARTS.tumbled(tumbling(10_000, { time: 'processing' })) }),
    refused: 'tumbled',
    sentence: /event time.*processing time/,
    todo: /another uid/,
    code: 'SNAPSHOT_INCOMPATIBLE',
  },
  {
    said: 'sessions that become windows of a size',
    parts: but({ sessions: PARTS.sessions(tumbling(5000)) }),
    refused: 'sessions',
    sentence: /were session.* and are tumbling/,
    todo: /another uid/,
    code: 'SNAPSHOT_INCOMPATIBLE',
  },
  {
    said: 'windows whose contents are kept in another way',
    parts: but({
      sessions: (clicks) =>
        void byUser(clicks)
          .window(session(5000))
          .process('sessions', (_, values) => [[...values].length])
          .sink('sessions-out', INTO),
    }),
    refused: 'sessions',
    sentence: /were .*aggregated.* and are .*records/,
    todo: /another uid/,
    code: 'SNAPSHOT_INCOMPATIBLE',
  },
  {
    said: 'a join that is gone',
    parts: but({ joined: undefined }),
    refused: 'joined',
    sentence: /no operator 'joined' any more/,
    todo: /Bring it back/,
    code: 'RESTORE_STATE_UNCLAIMED',
  },
  {
    said: 'a join that becomes a process of the same uid',
    parts: but({
      joined: (clicks) =>
        void byUser(clicks)
          .process('joined', process<string, Click, number>()({ state: { left: value<number>() }, onRecord() {} }))
          .sink('joined-out', INTO),
    }),
    refused: 'joined/left',
    sentence: /was stored as a list and is declared as one value a key/,
    todo: /another name/,
    code: 'SNAPSHOT_INCOMPATIBLE',
  },
  {
    said: 'a source by another uid',
    parts: but({}),
    source: 'clicks',
    refused: 'in',
    sentence: /no operator 'in' any more/,
    todo: /Bring it back/,
    code: 'RESTORE_STATE_UNCLAIMED',
  },
  {
    said: 'a transactional sink that is gone, with records that it has not committed',
    parts: but({ pending: undefined }),
    refused: 'pending',
    sentence: /no operator 'pending' any more/,
    todo: /Bring it back/,
    code: 'RESTORE_STATE_UNCLAIMED',
  },
  {
    said: 'a transactional sink by another uid',
    parts: but({ pending: PARTS.pending('renamed') }),
    refused: 'pending',
    sentence: /no operator 'pending' any more/,
    todo: /Bring it back/,
    code: 'RESTORE_STATE_UNCLAIMED',
  },
  {
    said: 'a transactional sink that becomes a plain one, with records that it has not committed',
    parts: but({ pending: (clicks) => void clicks.sink('pending', INTO) }),
    refused: 'pending/records not yet committed',
    sentence: /not transactional any more/,
    todo: /Bring it back/,
    code: 'RESTORE_STATE_UNCLAIMED',
  },
  {
    said: 'another maxParallelism',
    parts: but({}),
    options: { maxParallelism: 64 },
    refused: 'clicks/maxParallelism',
    sentence: /128.*64/,
    todo: /repartition/,
    code: 'MAX_PARALLELISM_CHANGED',
  },
];

describe('a change that a program cannot take over a snapshot with', () => {
  it('is none where nothing has changed', async () => {
    const { states, takesOver } = await verified(program(but({})), {});
    expect(states.filter(({ outcome }) => outcome === 'refused')).toEqual([]);
    expect(takesOver).toBe(true);
    expect(await started(program(but({})), {})).toBeUndefined();
  });

  it.each(CHANGES)('$said: refused, by verify and by a start', async ({ parts, source, options = {}, refused, sentence, todo, code }) => {
    const { states, takesOver } = await verified(program(parts, { source: source ?? 'in' }), options);
    const all = states.filter(({ outcome }) => outcome === 'refused');
    expect(all.map(({ uid, state }) => (state === undefined ? uid : `${uid}/${state}`))).toContain(refused);
    const one = all.find(({ uid, state }) => (state === undefined ? uid : `${uid}/${state}`) === refused)!;
    expect(one.sentence).toMatch(sentence);
    expect(one.todo).toMatch(todo);
    expect(takesOver).toBe(false);
    expect(await started(program(parts, { source: source ?? 'in' }), options)).toBe(code);
  });
});
