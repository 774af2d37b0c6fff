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
//  H3  Without its leader a host runs nothing: when that link is gone every part is stopped.
//  H4  The loss of a link to another host is told to the leader, which decides; no channel is opened over it any more.
//  H5  Of a region the newest attempt counts: an older one is not opened any more, since it would take over the channels of the newer one.
//  H6  What user code says, in a log or in a dead letter, is sent as far as it can be. That it cannot be is no failure of the code.

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
import type { TaskReports } from '../runtime/task-contract.ts';
import { AlignmentGroups } from '../time/alignment-group.ts';
import { errorData, type HostMail, type LeaderMail, type PartRequest, type ReportName } from './host-mail.ts';
import { described, plainField } from './plain.ts';
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
  /** Where it goes what there is no leader any more to be told of; default a warning of the process. */
  readonly log?: Logger | undefined;
}

interface Part {
  readonly local: LocalPart;
  readonly ends: readonly RemoteEnd[];
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
  readonly channels: RemoteChannels;
}

type Run = { readonly fn: () => void };

export class Host {
  /** Settles when the leader is gone and everything has ended. */
  readonly ended: Promise<void>;
  readonly #options: HostOptions;
  readonly #leader: RemoteChannels;
  readonly #peers = new Map<number, PeerLink>();
  readonly #metrics = new MetricRegistry();
  readonly #parts = new Map<string, Part>();
  readonly #running = new Map<ActorRef<never>, Running>();
  /** H5: by region, its newest attempt. */
  readonly #newest = new Map<number, number>();
  readonly #system;
  readonly #log: Logger;
  #context!: ActorContext<Run>;
  /** H3: the leader is gone. */
  #alone = false;
  /** Parts that are being closed. */
  readonly #closing = new Set<Promise<void>>();
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
    this.#leader = new RemoteChannels(options.leader, {
      mail: (message) => {
        const mail = message as LeaderMail;
        // H1.
        if (mail.kind === 'ask') {
          this.#answer(mail);
          return;
        }
        this.#order = this.#order
          .then(() => this.#receive(mail))
          .catch((error) => this.#log.error({ error: messageOf(error), mail: mail.kind }, 'A host could not do what it was told.'));
      },
    });
    this.ended = this.#leader.lost.then(() => this.#end());
  }

  /** Channels to the host of that number go over this link from now on, the `by`-th as the leader counts. */
  join(peer: number, link: Link, by = 0): void {
    const replaced = this.#peers.get(peer);
    const joined: PeerLink = { link, channels: new RemoteChannels(link) };
    this.#peers.set(peer, joined);
    replaced?.link.close();
    // H4.
    void joined.channels.lost.then((error) => {
      if (this.#peers.get(peer) !== joined) return;
      this.#peers.delete(peer);
      this.#tell({ kind: 'unlinked', peer, by, error: errorData(error ?? linkLost(link.peer, 'the host at its other end has ended')) });
    });
  }

  #tell(mail: HostMail): void {
    this.#leader.tell(mail);
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
      case 'mail':
        if (mail.mail.kind === 'complete') part.lastCheckpoint = mail.mail.id;
        part.local.tell(mail.task, mail.mail);
        break;
      case 'stop':
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
        reports: (task) => this.#reports(name, task),
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
          tell: (task, mail) => this.#tell({ kind: 'forward', part: name, task, mail }),
        },
      });
      part.current = { local, ends, lastCheckpoint: request.lastCheckpoint, ref: undefined, over: undefined };
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
    if (this.#parts.get(name) === part) this.#tell({ kind: 'stopped', part: name });
    over();
  }

  /** H6. */
  #letter(part: string, letter: DeadLetter): void {
    try {
      this.#tell({ kind: 'letter', part, letter });
    } catch (error) {
      this.#log.warn({ uid: letter.uid, error: messageOf(error) }, 'The record of a dead letter cannot be sent to the leader; it is described there.');
      this.#tell({ kind: 'letter', part, letter: { ...letter, record: described(letter.record) } });
    }
  }

  #reports(part: string, task: string): Omit<TaskReports, 'deadLetter'> {
    const report =
      (name: ReportName) =>
      (...args: readonly unknown[]): void =>
        this.#tell({ kind: 'report', part, task, report: name, args });
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

  /** H3. Tasks end first: what is done in order may wait for them. */
  async #end(): Promise<void> {
    this.#alone = true;
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
  }
}
