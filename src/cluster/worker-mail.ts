// What the main threads of workers say to each other about hosts, as data.
//
//   leader → worker    begin: a host for a job, whose link to the leader is that part of the connection between the two
//   leader → dialer    join: a host of yours with one of that worker
//   dialer → acceptor  part: that part of our connection leads from your host to mine
//   leader → worker    end: a host that answers nothing any more
//   leader → worker    standing: what goes on there of a job whose leader is gone; once, before anything of the job is begun
//   leader → worker    settle: those hosts are mine, with these parts of theirs, and over these parts of our connection; any other of older leaders ends
//   back               answer: done, and what came of it, or why not
//   worker → leader    failed: why a host that you have begun here is about to end, where that is known
//
// A host is named by job, epoch and a number that the leader draws, each once. Whatever is of an older epoch than the newest one known is refused (protocols 17).

import type { ErrorData } from './host-mail.ts';
import type { StandingHost } from './standing.ts';

/** Which host, among all that ever were. */
export interface HostName {
  readonly job: string;
  readonly epoch: number;
  readonly host: number;
}

/** A job under a leader. */
export type JobName = Omit<HostName, 'host'>;

/** A host that another leader goes on with: which it was, the parts of it that stay, and the part of the connection to the new leader. */
export interface Settled {
  readonly host: number;
  readonly epoch: number;
  readonly parts: readonly string[];
  readonly part: number;
}

/** By host; what was asked for and could not be had is missing. */
export interface WorkerAnswers {
  readonly standing: readonly StandingHost[];
  readonly settle: readonly number[];
}

export type WorkerMail = { readonly of: 'hosts' } & (
  | ({ readonly kind: 'begin'; readonly ask: number; readonly part: number } & HostName)
  | ({ readonly kind: 'join'; readonly ask: number; readonly link: number; readonly peer: number; readonly worker: string } & HostName)
  | ({ readonly kind: 'part'; readonly ask: number; readonly link: number; readonly peer: number; readonly part: number } & HostName)
  | ({ readonly kind: 'standing'; readonly ask: number } & JobName)
  | ({ readonly kind: 'settle'; readonly ask: number; readonly settled: readonly Settled[] } & JobName)
  | ({ readonly kind: 'end' } & HostName)
  | ({ readonly kind: 'failed'; readonly error: ErrorData } & HostName)
  | { readonly kind: 'answer'; readonly ask: number; readonly value?: unknown; readonly error?: ErrorData }
);

/** What is asked for: who is asked answers. */
export type WorkerAsk = Extract<WorkerMail, { readonly ask: number; readonly job: string }>;

export function isWorkerMail(message: unknown): message is WorkerMail {
  return typeof message === 'object' && message !== null && (message as { of?: unknown }).of === 'hosts';
}

/** A host as a key of a map. */
export function keyOf({ job, epoch, host }: HostName): string {
  return `${epoch}/${host}/${job}`;
}
