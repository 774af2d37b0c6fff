// A host: one thread that runs parts of regions for a leader in another one. The same for a worker thread and for a process elsewhere: it knows links only.
//
// Who owns what: the host owns its actor system, keyed state and links; the leader decides what runs, when a checkpoint is taken and when it is complete. Closures
// of the program are the host's own: it builds the plan from the module itself.
//
// Invariants:
//  H1  What the leader says of a part is done in the order said, but that nothing waits until one is closed. Of a part that is not there nothing is done. Questions about the host itself are answered at once, so that
//      one whose disk takes its time is not taken for an endless loop.
//  H2  A part is stopped when all its tasks have ended; only then is its state closed.
//      Questions about state are the exception: they wait for the turn of a task, and nothing waits for them.
//  H3  When its leader lets go of it every part is stopped. When the link to its leader is lost, or its worker says that another one leads, tasks go on for `aloneMs`, and another
//      leader may go on with them (standing.ts); what is not taken over by then is stopped. Where it is not given, nothing goes on.
//  H4  The loss of a link to another host is told to the leader, which decides; no channel is opened over it any more.
//  H5  Of a region the newest attempt counts: an older one is not opened any more, since it would take over the channels of the newer one.
//  H6  What user code says, in a log or in a dead letter, is sent as far as it can be. That it cannot be is no failure of the code.
//  H7  What the tasks of a part say while it has no leader, and until `resume`, is held: there it is said in order, behind what the ledger knows (part-ledger.ts).

import { inspect } from 'node:util';
import { type ActorContext, type ActorRef, createSystem, defineActor, supervisor } from '../../actors/index.ts';
import type { StateBackend } from '../../state-backends/index.ts';
import { MillraceError, messageOf } from '../errors.ts';
import { MetricRegistry } from '../execution/metrics.ts';
import { SHUTDOWN_MS } from '../execution/region.ts';
import { LocalPart } from '../execution/region-part.ts';
import { nameOfTask } from '../execution/region-tasks.ts';
import type { LogFn, Logger } from '../graph/context.ts';
import type { DeadLetter, MetricSample, TreeNode } from '../graph/job.ts';
import { type Node, nameOf } from '../graph/node.ts';
import { buildGraph } from '../graph/plan.ts';
import type { Io } from '../runtime/io.ts';
import type { OperatorFactory } from '../runtime/operator.ts';
import type { SnapshotStorage } from '../runtime/snapshot.ts';
import type { TaskMail, TaskReports } from '../runtime/task-contract.ts';
import { TaskFailure } from '../runtime/units.ts';
import { AlignmentGroups } from '../time/alignment-group.ts';
import { errorData, type HostMail, type LeaderMail, type PartRequest, type PeerMail, type ReportName } from './host-mail.ts';
import { PartLedger } from './part-ledger.ts';
import { described, plainField } from './plain.ts';
import type { Standing, StandingPart } from './standing.ts';
import { type Link, linkLost } from './transport/link.ts';
import { RemoteChannels, type RemoteEnd } from './transport/remote-channel.ts';

export interface HostOptions {
  readonly job: { readonly name: string; build(): Node[] };
  readonly operators: (node: Node) => OperatorFactory;
  /** Its number among the hosts of the job. */
  readonly number: number;
  readonly backend: StateBackend;
  readonly storage: SnapshotStorage | undefined;
  readonly io: Io;
  readonly leader: Link;
  /** H3: milliseconds; default 0. */
  readonly aloneMs?: number | undefined;
  /** Where it goes what there is no leader any more to be told of; default a warning of the process. */
  readonly log?: Logger | undefined;
}

interface Part {
  readonly is: Omit<StandingPart, 'markers'>;
  readonly local: LocalPart;
  readonly ends: readonly RemoteEnd[];
  readonly ledger: PartLedger;
  /** H7. Undefined: what is said is sent. */
  held: HostMail[] | undefined;
  /** What came for a task that was not told to begin yet. */
  readonly early: Map<string, TaskMail[]>;
  /** Of the newest checkpoint that was completed. */
  lastCheckpoint: number | undefined;
  ref: ActorRef<never> | undefined;
  /** H2: all its tasks have ended. Undefined: none has begun. */
  over: Promise<void> | undefined;
}

/** A part whose tasks run. */
interface Running {
  readonly name: string;
  readonly part: Part;
  readonly over: () => void;
}

interface PeerLink {
  readonly link: Link;
  readonly by: number;
  readonly channels: RemoteChannels;
}

type Run = { readonly fn: () => void };

/** Dead letters that a host without a leader keeps; with more it ends, and what follows is done anew. */
const LETTERS_MAX = 10_000;

export class Host {
  /** Settles when it has no leader any more and everything has ended. */
  readonly ended: Promise<void>;
  readonly #options: HostOptions;
  #leader: RemoteChannels | undefined;
  readonly #peers = new Map<number, PeerLink>();
  readonly #metrics = new MetricRegistry();
  readonly #parts = new Map<string, Part>();
  readonly #running = new Map<ActorRef<never>, Running>();
  /** H5: by region, its newest attempt. */
  readonly #newest = new Map<number, number>();
  readonly #system;
  readonly #log: Logger;
  #context!: ActorContext<Run>;
  /** H3: there is no leader. */
  #alone = false;
  /** Parts that are being closed. */
  readonly #closing = new Set<Promise<void>>();
  #until: unknown;
  #ending = false;
  #over!: () => void;
  /** H1. */
  #order: Promise<void> = Promise.resolve();

  constructor(options: HostOptions) {
    this.#options = options;
    this.#log = this.#logger({});
    this.#system = createSystem({ name: `host-${options.number}`, random: () => options.io.random(), onFailure: () => {} });
    this.#system.spawn(
      defineActor<Run>(
        (context) => {
          this.#context = context;
          return { receive: ({ fn }) => fn(), onSignal: { terminated: (ref) => this.#stopped(ref) } };
        },
        { kind: 'supervisor' },
      ),
      { name: 'parts', shutdown: 'infinity' },
    );
    this.ended = new Promise((resolve) => {
      this.#over = resolve;
    });
    this.#follow(options.leader);
  }

  #follow(link: Link): void {
    const leader = new RemoteChannels(link, {
      mail: (message) => {
        if (this.#leader !== leader) return;
        const mail = message as LeaderMail;
        // H1.
        if (mail.kind === 'ask') this.#answer(mail);
        else this.#inOrder(mail.kind, () => this.#receive(mail));
      },
    });
    this.#leader = leader;
    void leader.lost.then((error) => {
      if (this.#leader !== leader) return;
      if (error === undefined) this.end();
      else this.#standAlone();
    });
  }

  #inOrder(what: string, work: () => Promise<void>): void {
    this.#order = this.#order.then(work).catch((error) => this.#log.error({ error: messageOf(error), mail: what }, 'A host could not do what it was told.'));
  }

  // ── without a leader ──

  /** H3. */
  #standAlone(): void {
    const { aloneMs = 0, io, number } = this.#options;
    this.#leader = undefined;
    this.#alone = true;
    for (const part of this.#parts.values()) part.held ??= [];
    if (aloneMs === 0 || ![...this.#parts.values()].some(({ ledger }) => ledger.whole)) {
      this.end();
      return;
    }
    this.#log.info({ host: number, forMs: aloneMs }, 'The leader is gone. What runs here goes on, until another one says what becomes of it.');
    this.#until = io.clock.setTimeout(() => this.end(), aloneMs);
  }

  /** What goes on. Whoever asks knows that there is another leader than the one that this host has. */
  standing(): Standing {
    if (!this.#alone && !this.#ending) this.#standAlone();
    if (this.#ending) return { parts: [], peers: new Map() };
    const whole = [...this.#parts.values()].filter(({ ledger }) => ledger.whole);
    return {
      parts: whole.map(({ is, ledger }) => ({ ...is, markers: ledger.markers })),
      peers: new Map([...this.#peers].map(([peer, { by }]) => [peer, by])),
    };
  }

  /** Another leader goes on with these parts; the others are closed. @throws HOST_LOST where one of them is not whole any more */
  adopt(leader: Link, parts: readonly string[]): void {
    if (!this.#alone || this.#ending || parts.some((name) => this.#parts.get(name)?.ledger.whole !== true))
      throw new MillraceError('HOST_LOST', `What ran in host ${this.#options.number} does not go on.`);
    this.#options.io.clock.clearTimeout(this.#until);
    this.#alone = false;
    for (const [name, part] of this.#parts) {
      if (parts.includes(name)) continue;
      this.#parts.delete(name);
      this.#closes(name, part);
    }
    this.#follow(leader);
  }

  #resume(name: string, part: Part): void {
    const held = part.held ?? [];
    part.held = undefined;
    for (const mail of part.ledger.again()) this.#tell(mail);
    for (const mail of held) {
      if (mail.kind === 'letter') this.#letter(name, mail.letter);
      else this.#tell(mail);
    }
  }

  /** Channels to the host of that number go over this link from now on, the `by`-th as the leader counts. */
  join(peer: number, link: Link, by = 0): void {
    const replaced = this.#peers.get(peer);
    const joined: PeerLink = { link, by, channels: new RemoteChannels(link, { mail: (message) => this.#passOn(message as PeerMail) }) };
    this.#peers.set(peer, joined);
    replaced?.link.close();
    // H4.
    void joined.channels.lost.then((error) => {
      if (this.#peers.get(peer) !== joined) return;
      this.#peers.delete(peer);
      const lost = error ?? linkLost(link.peer, 'the host at its other end has ended');
      this.#tell({ kind: 'unlinked', peer, by, error: errorData(lost) });
      for (const [name, part] of this.#parts) {
        if (![...part.is.placement.values()].includes(peer)) continue;
        // Also where the leader is told: it may be gone already.
        part.ledger.broken();
        const [task] = [...part.is.placement].find(([, host]) => host === this.#options.number)!;
        part.held?.push({ kind: 'report', part: name, task, report: 'failed', args: [errorData(new TaskFailure('restart', lost))] });
      }
    });
  }

  /** From another host, for a task here. It may come before the leader has told that task to begin. */
  #passOn({ part: name, task, mail }: PeerMail): void {
    const part = this.#parts.get(name);
    if (part === undefined) return;
    if (part.ledger.began(task)) part.local.tell(task, mail);
    else part.early.set(task, [...(part.early.get(task) ?? []), mail]);
  }

  #tell(mail: HostMail): void {
    this.#leader?.tell(mail);
  }

  /** H7. Of what the ledger knows, or what is nothing without the leader that asked for it, nothing is held. */
  #say(part: Part, mail: HostMail & { kind: 'report' | 'stopped' | 'letter' }): void {
    if (part.held === undefined) this.#tell(mail);
    else if (mail.kind !== 'report' || mail.report === 'failed' || mail.report === 'stopped') part.held.push(mail);
  }

  #answer({ ask, what }: LeaderMail & { kind: 'ask' }): void {
    let value: readonly TreeNode[] | readonly MetricSample[] = [];
    try {
      if (what !== 'beat') value = what === 'tree' ? this.#tree() : this.#samples();
    } catch (error) {
      this.#log.error({ error: messageOf(error), what }, 'A host could not answer what it was asked.');
    }
    this.#tell({ kind: 'answer', ask, value });
  }

  async #receive(mail: Exclude<LeaderMail, { kind: 'ask' }>): Promise<void> {
    const { part: name } = mail;
    if (mail.kind === 'look') {
      this.#show(mail, this.#parts.get(name));
      return;
    }
    if (mail.kind === 'open') return this.#open(name, mail.request);
    const part = this.#parts.get(name);
    if (part === undefined) return;
    switch (mail.kind) {
      case 'start':
        this.#context.self.tell({ fn: () => this.#start(name, part) });
        break;
      case 'resume':
        this.#resume(name, part);
        break;
      case 'mail':
        if (mail.mail.kind === 'complete') part.lastCheckpoint = mail.mail.id;
        part.ledger.told(mail.task, mail.mail);
        part.local.tell(mail.task, mail.mail);
        if (mail.mail.kind === 'go') {
          for (const early of part.early.get(mail.task) ?? []) part.local.tell(mail.task, early);
          part.early.delete(mail.task);
        }
        break;
      case 'stop':
        part.ledger.broken();
        this.#context.self.tell({ fn: () => (part.ref === undefined ? this.#tell({ kind: 'stopped', part: name }) : this.#context.stop(part.ref)) });
        break;
      case 'close':
        this.#parts.delete(name);
        this.#closes(name, part);
    }
  }

  async #open(name: string, request: PartRequest): Promise<void> {
    const { job, io, backend, storage, operators, number } = this.#options;
    const ends: RemoteEnd[] = [];
    try {
      const newest = this.#newest.get(request.region) ?? 0;
      if (request.attempt < newest) {
        throw new MillraceError('RUNTIME_FAILED', `Host ${number} has begun attempt ${newest} of region ${request.region}, and opens none before it.`);
      }
      this.#newest.set(request.region, request.attempt);
      const graph = buildGraph(job.build(), { parallelism: request.parallelism, version: request.version });
      if (graph.plan.hash !== request.planHash) {
        throw new MillraceError('PLAN_INVALID', `The module makes another plan of the job '${job.name}' in host ${number} than where the job was started.`, {
          todo: 'A job is to be the same each time it is built: nothing in it may depend on where or when.',
        });
      }
      const hostOf = (vertex: Parameters<typeof nameOfTask>[0], subtask: number): number => request.placement.get(nameOfTask(vertex, subtask))!;
      const peer = (host: number): RemoteChannels => {
        const joined = this.#peers.get(host);
        if (joined === undefined) throw new MillraceError('LINK_LOST', `Host ${number} has no link to host ${host}.`);
        return joined.channels;
      };
      const { attempt, region } = request;
      const part: { current: Part | undefined } = { current: undefined };
      const local = await LocalPart.open({
        job: job.name,
        number: region,
        attempt,
        lineage: request.lineage,
        graph,
        maxParallelism: request.maxParallelism,
        backend,
        operators,
        io,
        log: this.#log,
        metrics: this.#metrics,
        storage,
        blocking: request.blocking,
        watermarkEachBatch: request.watermarkEachBatch,
        alignment: new AlignmentGroups(),
        metadata: request.metadata,
        usedIds: request.usedIds,
        lastCheckpoint: () => part.current?.lastCheckpoint,
        reports: (task) => this.#reports(name, task, () => part.current!),
        onDeadLetter: (letter) => this.#letter(name, letter),
        elsewhere: {
          here: (vertex, subtask) => hostOf(vertex, subtask) === number,
          out: (edge, from, to, wake, failed) => {
            const end = peer(hostOf(edge.to, to)).out({
              name: `${region}/${edge.index}/${from}/${to}`,
              attempt,
              from: nameOf(edge.node),
              to: nameOf(edge.to.head),
              wake,
              failed,
            });
            ends.push(end);
            return end.channel;
          },
          in: (edge, from, to, wake) => {
            const end = peer(hostOf(edge.from, from)).in({ name: `${region}/${edge.index}/${from}/${to}`, attempt, wake });
            ends.push(end);
            return end.channel;
          },
          // Of a link that is gone the leader hears, and restarts both.
          tell: (task, mail) => this.#peers.get(request.placement.get(task)!)?.channels.tell({ part: name, task, mail } satisfies PeerMail),
        },
      });
      const { lineage, planHash, parallelism, maxParallelism, placement } = request;
      part.current = {
        is: { name, region, attempt, lineage, planHash, parallelism, maxParallelism, placement },
        local,
        ends,
        ledger: new PartLedger(
          name,
          [...placement].flatMap(([task, host]) => (host === number ? [task] : [])),
        ),
        held: this.#alone ? [] : undefined,
        early: new Map(),
        lastCheckpoint: request.lastCheckpoint,
        ref: undefined,
        over: undefined,
      };
      this.#parts.set(name, part.current);
      this.#tell({ kind: 'opened', part: name });
    } catch (error) {
      for (const end of ends) end.close();
      this.#tell({ kind: 'refused', part: name, error: errorData(error) });
    }
  }

  #start(name: string, part: Part): void {
    if (this.#parts.get(name) !== part) return;
    const children = part.local.children.map((child) => ({ ...child, restart: 'transient' as const, shutdown: SHUTDOWN_MS }));
    const behaviour = supervisor({ strategy: 'one-for-all', intensity: { max: 0, within: 1 }, children });
    part.ref = this.#context.spawn(behaviour, { name: name.replace('/', '-'), shutdown: 'infinity' });
    const { ref } = part;
    part.over = new Promise((over) => this.#running.set(ref, { name, part, over }));
    this.#context.watch(ref);
  }

  #stopped(ref: ActorRef<never>): void {
    const { name, part, over } = this.#running.get(ref)!;
    this.#running.delete(ref);
    part.ledger.broken();
    if (this.#parts.get(name) === part) this.#say(part, { kind: 'stopped', part: name });
    over();
  }

  /** H6. */
  #letter(name: string, letter: DeadLetter): void {
    const part = this.#parts.get(name);
    if (part?.held !== undefined) {
      if (part.held.length >= LETTERS_MAX) this.end();
      this.#say(part, { kind: 'letter', part: name, letter });
      return;
    }
    try {
      this.#tell({ kind: 'letter', part: name, letter });
    } catch (error) {
      this.#log.warn({ uid: letter.uid, error: messageOf(error) }, 'The record of a dead letter cannot be sent to the leader; it is described there.');
      this.#tell({ kind: 'letter', part: name, letter: { ...letter, record: described(letter.record) } });
    }
  }

  #reports(name: string, task: string, part: () => Part): Omit<TaskReports, 'deadLetter'> {
    const report =
      (report: ReportName) =>
      (...args: readonly unknown[]): void => {
        part().ledger.said(task, report, args);
        this.#say(part(), { kind: 'report', part: name, task, report, args });
      };
    const failing =
      (name: ReportName) =>
      (...args: readonly unknown[]): void =>
        report(name)(...args.slice(0, -1), errorData(args.at(-1)));
    return {
      opened: report('opened'),
      ack: report('ack'),
      declined: failing('declined'),
      committed: report('committed'),
      ended: report('ended'),
      finished: report('finished'),
      failed: failing('failed'),
      stopped: failing('stopped'),
    };
  }

  #closes(name: string, part: Part): void {
    const closed = this.#close(part).then(
      () => this.#tell({ kind: 'closed', part: name }),
      (error) => this.#tell({ kind: 'closed', part: name, error: errorData(error) }),
    );
    const told = closed
      .catch((error) => this.#log.error({ error: messageOf(error), part: name }, 'A host could not say that a part is closed.'))
      .finally(() => this.#closing.delete(told));
    this.#closing.add(told);
  }

  /** H2. */
  async #close({ local, ends, ref, over }: Part): Promise<void> {
    for (const end of ends) end.close();
    if (ref !== undefined) this.#context.self.tell({ fn: () => this.#context.stop(ref) });
    await over;
    await local.close();
  }

  #show({ ask, task, question }: LeaderMail & { kind: 'look' }, part: Part | undefined): void {
    const failed = (error: unknown): void => this.#tell({ kind: 'shown', ask, error: errorData(error) });
    const answered = part?.local.ask(task, question) ?? Promise.resolve(undefined);
    // An answer that cannot be sent, because it is too large, is told as an error too.
    answered.then((answer) => this.#tell({ kind: 'shown', ask, answer })).catch(failed);
  }

  #samples() {
    const samples = this.#metrics.samples();
    for (const { local } of this.#parts.values()) samples.push(...local.samples());
    return samples;
  }

  /** By part, its tasks. */
  #tree(): TreeNode[] {
    return (this.#system.tree() as TreeNode).children.flatMap(({ children }) => children);
  }

  #logger(fields: object): Logger {
    const say =
      (level: 'debug' | 'info' | 'warn' | 'error'): LogFn =>
      (first: unknown, second?: unknown) => {
        const [more, text] = typeof first === 'string' ? [{}, first] : [first as object, String(second)];
        const plain = Object.fromEntries(Object.entries({ ...fields, ...more }).map(([key, value]) => [key, plainField(value)]));
        if (!this.#alone) this.#tell({ kind: 'log', level, fields: plain, text });
        else if (this.#options.log !== undefined) this.#options.log[level](plain, text);
        else if (level === 'warn' || level === 'error') process.emitWarning(`${text} ${inspect(plain)}`);
      };
    return { debug: say('debug'), info: say('info'), warn: say('warn'), error: say('error'), child: (more) => this.#logger({ ...fields, ...more }) };
  }

  /** Whether it has a leader or not. */
  end(): void {
    if (this.#ending) return;
    this.#ending = true;
    void this.#end();
  }

  /** H3. Tasks end first: what is done in order may wait for them. */
  async #end(): Promise<void> {
    this.#alone = true;
    this.#options.io.clock.clearTimeout(this.#until);
    await this.#system.stop();
    for (const { over } of this.#running.values()) over();
    await this.#order;
    for (const { link } of this.#peers.values()) link.close();
    // None waits for another one, whose disk may not answer.
    const closing = [...this.#parts].map(([name, part]) =>
      this.#close(part).catch((error) => this.#log.warn({ part: name, error: messageOf(error) }, 'State could not be closed.')),
    );
    this.#parts.clear();
    await Promise.all([...closing, ...this.#closing]);
    this.#over();
  }
}
