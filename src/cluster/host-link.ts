// A host as its leader sees it: the link to it, its parts, and what is asked of it.
//
// Invariants:
//  L1  The loss of a host is told once, to each of its parts and to whoever asked it something; a part that comes later is told at once.
//  L2  Silence is counted in beats, never by the clock: who was held up itself has one beat behind it, and reads what has come meanwhile before the next one.

import { MillraceError } from '../errors.ts';
import type { AnswerTo, StateQuestion } from '../execution/state-questions.ts';
import type { Logger } from '../graph/context.ts';
import type { MetricSample, TreeNode } from '../graph/job.ts';
import { errorOf, type HostMail, type LeaderMail } from './host-mail.ts';
import type { PartHost, RemotePart } from './remote-part.ts';
import type { Link } from './transport/link.ts';
import { RemoteChannels } from './transport/remote-channel.ts';

type Answer = readonly MetricSample[] | readonly TreeNode[];
type Shown = AnswerTo<StateQuestion> | undefined;

export class HostLink implements PartHost {
  readonly name: string;
  readonly #link: Link;
  readonly #channels: RemoteChannels;
  readonly #parts = new Map<string, RemotePart>();
  readonly #asked = new Map<number, (answer: Answer) => void>();
  readonly #looks = new Map<number, { resolve(answer: Shown): void; reject(error: Error): void }>();
  #asks = 0;
  #unanswered = 0;
  /** Why nothing is asked of it any more. */
  #lostBy: MillraceError | undefined;

  constructor(
    name: string,
    link: Link,
    options: {
      readonly log: Logger;
      /** Threads of one process are not told apart from their links. */
      unlinked?(mail: HostMail & { kind: 'unlinked' }): void;
    },
  ) {
    this.name = name;
    this.#link = link;
    this.#channels = new RemoteChannels(link, {
      mail: (message) => {
        this.#unanswered = 0;
        const mail = message as HostMail;
        if (mail.kind === 'answer') {
          this.#asked.get(mail.ask)?.(mail.value);
          this.#asked.delete(mail.ask);
        } else if (mail.kind === 'shown') {
          const look = this.#looks.get(mail.ask);
          this.#looks.delete(mail.ask);
          if (mail.error === undefined) look?.resolve(mail.answer);
          else look?.reject(errorOf(mail.error));
        } else if (mail.kind === 'log') options.log[mail.level]({ host: name, ...mail.fields }, mail.text);
        else if (mail.kind === 'unlinked') options.unlinked?.(mail);
        else this.#parts.get(mail.part)?.heard(mail);
      },
    });
  }

  add(part: RemotePart): void {
    this.#parts.set(part.name, part);
    if (this.#lostBy !== undefined) part.hostLost(this.#lostBy);
  }

  forget(part: RemotePart): void {
    if (this.#parts.get(part.name) === part) this.#parts.delete(part.name);
  }

  tell(mail: LeaderMail): void {
    this.#channels.tell(mail);
  }

  /** Asks for a sign of life; gives how often it was asked for since the last one came (L2). */
  beat(): number {
    this.#unanswered += 1;
    this.tell({ kind: 'ask', ask: -1, what: 'beat' });
    return this.#unanswered;
  }

  /** Of a host that is lost meanwhile: nothing. */
  ask(what: 'metrics' | 'tree'): Promise<Answer> {
    if (this.#lostBy !== undefined) return Promise.resolve([]);
    const ask = this.#asks++;
    this.tell({ kind: 'ask', ask, what });
    return new Promise((resolve) => this.#asked.set(ask, resolve));
  }

  /** Its parts that have tasks at the host of that number as well fail. */
  unlinked(peer: number, error: MillraceError): void {
    for (const part of [...this.#parts.values()]) if (part.spans(peer)) part.fail(error);
  }

  /** About the state of a task; of a host that is lost meanwhile nothing, as of a task that is over. */
  look(part: string, task: string, question: StateQuestion): Promise<Shown> {
    if (this.#lostBy !== undefined) return Promise.resolve(undefined);
    const ask = this.#asks++;
    this.tell({ kind: 'look', ask, part, task, question });
    return new Promise((resolve, reject) => this.#looks.set(ask, { resolve, reject }));
  }

  lost(error: MillraceError): void {
    if (this.#lostBy !== undefined) return;
    this.#lostBy = error;
    this.#answerNothing();
    for (const part of [...this.#parts.values()]) part.hostLost(error);
    this.#link.close();
  }

  /** This leader is none any more: its parts here are over, and the host goes on without it. */
  letGo(error: MillraceError): void {
    if (this.#lostBy !== undefined) return;
    this.#lostBy = error;
    this.#answerNothing();
    for (const part of [...this.#parts.values()]) part.hostLost(error);
    this.#link.close(error);
  }

  /** In order: the host ends. */
  close(): void {
    this.#lostBy ??= new MillraceError('HOST_LOST', `${this.name} has been ended with its job.`);
    this.#answerNothing();
    this.#link.close();
  }

  /** To whoever waits for the host. */
  #answerNothing(): void {
    for (const answer of this.#asked.values()) answer([]);
    this.#asked.clear();
    for (const { resolve } of this.#looks.values()) resolve(undefined);
    this.#looks.clear();
  }
}
