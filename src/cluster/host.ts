// A host: one thread that runs parts of regions for a leader in another one. The same for a worker thread and for a process elsewhere: it knows links only.
//
// Who owns what: the host owns its actor system, keyed state and links; the leader decides what runs, when a checkpoint is taken and when it is complete. Closures
// of the program are the host's own: it builds the plan from the module itself.
//
// Invariants:
//  H1  What the leader says of a part is done in the order said. Of a part that is not there nothing is done.
//  H2  A part is stopped when all its tasks have ended; only then is its state closed.
//      Questions about state are the exception: they wait for the turn of a task, and nothing waits for them.
//  H3  Without its leader a host runs nothing: when that link is gone every part is stopped.
//  H4  The loss of a link to another host is told to the leader, which decides; no channel is opened over it any more.

import { type ActorContext, type ActorRef, createSystem, defineActor, supervisor } from '../../actors/index.ts';
import type { StateBackend } from '../../state-backends/index.ts';
import { MillraceError, messageOf } from '../errors.ts';
import { MetricRegistry } from '../execution/metrics.ts';
import { SHUTDOWN_MS } from '../execution/region.ts';
import { LocalPart } from '../execution/region-part.ts';
import { nameOfTask } from '../execution/region-tasks.ts';
import type { LogFn, Logger } from '../graph/context.ts';
import type { TreeNode } from '../graph/job.ts';
import { type Node, nameOf } from '../graph/node.ts';
import { buildGraph } from '../graph/plan.ts';
import type { Io } from '../runtime/io.ts';
import type { OperatorFactory } from '../runtime/operator.ts';
import type { SnapshotStorage } from '../runtime/snapshot.ts';
import type { TaskReports } from '../runtime/task-contract.ts';
import { AlignmentGroups } from '../time/alignment-group.ts';
import { errorData, type HostMail, type LeaderMail, type PartRequest, type ReportName } from './host-mail.ts';
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
}

interface Part {
  readonly local: LocalPart;
  readonly ends: readonly RemoteEnd[];
  /** Of the newest checkpoint that was completed. */
  lastCheckpoint: number | undefined;
  ref: ActorRef<never> | undefined;
}

type Run = { readonly fn: () => void };

export class Host {
  /** Settles when the leader is gone and everything has ended. */
  readonly ended: Promise<void>;
  readonly #options: HostOptions;
  readonly #leader: RemoteChannels;
  readonly #peers = new Map<number, RemoteChannels>();
  readonly #metrics = new MetricRegistry();
  readonly #parts = new Map<string, Part>();
  readonly #system;
  readonly #log: Logger;
  #context!: ActorContext<Run>;
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
        this.#order = this.#order
          .then(() => this.#receive(mail))
          .catch((error) => this.#log.error({ error: messageOf(error), mail: mail.kind }, 'A host could not do what it was told.'));
      },
    });
    this.ended = this.#leader.lost.then(() => this.#end());
  }

  /** Channels to the host of that number go over this link from now on, the `by`-th as the leader counts. */
  join(peer: number, link: Link, by = 0): void {
    const channels = new RemoteChannels(link);
    this.#peers.set(peer, channels);
    // H4.
    void channels.lost.then((error) => {
      if (this.#peers.get(peer) !== channels) return;
      this.#peers.delete(peer);
      this.#tell({ kind: 'unlinked', peer, by, error: errorData(error ?? linkLost(link.peer, 'the host at its other end has ended')) });
    });
  }

  #tell(mail: HostMail): void {
    this.#leader.tell(mail);
  }

  async #receive(mail: LeaderMail): Promise<void> {
    if (mail.kind === 'ask') {
      this.#tell({ kind: 'answer', ask: mail.ask, value: mail.what === 'tree' ? this.#tree() : mail.what === 'metrics' ? this.#samples() : [] });
      return;
    }
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
        try {
          await this.#close(part);
          this.#tell({ kind: 'closed', part: name });
        } catch (error) {
          this.#tell({ kind: 'closed', part: name, error: errorData(error) });
        }
    }
  }

  async #open(name: string, request: PartRequest): Promise<void> {
    const { job, io, backend, storage, operators, number } = this.#options;
    const ends: RemoteEnd[] = [];
    try {
      const graph = buildGraph(job.build(), { parallelism: request.parallelism, version: request.version });
      if (graph.plan.hash !== request.planHash) {
        throw new MillraceError('PLAN_INVALID', `The module makes another plan of the job '${job.name}' in host ${number} than where the job was started.`, {
          todo: 'A job is to be the same each time it is built: nothing in it may depend on where or when.',
        });
      }
      const hostOf = (vertex: Parameters<typeof nameOfTask>[0], subtask: number): number => request.placement.get(nameOfTask(vertex, subtask))!;
      const peer = (host: number): RemoteChannels => {
        const channels = this.#peers.get(host);
        if (channels === undefined) throw new MillraceError('LINK_LOST', `Host ${number} has no link to host ${host}.`);
        return channels;
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
        onDeadLetter: (letter) => this.#tell({ kind: 'letter', part: name, letter }),
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
      part.current = { local, ends, lastCheckpoint: request.lastCheckpoint, ref: undefined };
      this.#parts.set(name, part.current);
      this.#tell({ kind: 'opened', part: name });
    } catch (error) {
      for (const end of ends) end.close();
      this.#tell({ kind: 'refused', part: name, error: errorData(error) });
    }
  }

  #start(name: string, part: Part): void {
    const children = part.local.children.map((child) => ({ ...child, restart: 'transient' as const, shutdown: SHUTDOWN_MS }));
    const behaviour = supervisor({ strategy: 'one-for-all', intensity: { max: 0, within: 1 }, children });
    part.ref = this.#context.spawn(behaviour, { name: name.replace('/', '-'), shutdown: 'infinity' });
    this.#context.watch(part.ref);
  }

  #stopped(ref: ActorRef<never>): void {
    for (const [name, part] of this.#parts) if (part.ref === ref) this.#tell({ kind: 'stopped', part: name });
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

  async #close({ local, ends }: Part): Promise<void> {
    for (const end of ends) end.close();
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
        // What cannot be sent is not worth a failure.
        const plain = Object.fromEntries(
          Object.entries({ ...fields, ...more }).map(([key, value]) => [key, typeof value === 'object' ? messageOf(value) : value]),
        );
        this.#tell({ kind: 'log', level, fields: plain, text });
      };
    return { debug: say('debug'), info: say('info'), warn: say('warn'), error: say('error'), child: (more) => this.#logger({ ...fields, ...more }) };
  }

  /** H3. */
  async #end(): Promise<void> {
    await this.#order;
    await this.#system.stop();
    for (const part of this.#parts.values()) await this.#close(part);
    this.#parts.clear();
  }
}
