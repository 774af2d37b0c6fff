// What the control door answers: requests over HTTP to JSON, for one job.
//
//   GET  /health                      { status: 'ok' }: the process answers
//   GET  /ready                       { ready: true, status }, or 503 with { ready: false, status, why }; see readiness.ts
//   GET  /jobs                        [ { id, name, status, startedAt, pid, … } ]
//   GET  /jobs/<name>                 the same of one, with its plan and the checkpoint that it started from
//   GET  /jobs/<name>/tree            every actor with its state and figures
//   GET  /jobs/<name>/checkpoints     completed and retained, oldest first
//   GET  /jobs/<name>/metrics
//   GET  /jobs/<name>/state …         keyed state, live; see state-requests.ts
//   POST /jobs/<name>/checkpoint      takes one now
//   POST /jobs/<name>/savepoint       { directory: string }, a path of this process; answers when the savepoint is complete
//   POST /jobs/<name>/rescale         { parallelism: number }; answers when every task runs again
//   POST /jobs/<name>/stop            { drain?: boolean, savepoint?: string }; answers with the job's result when it has ended
//   POST /jobs/<name>/cancel          likewise
//
// Errors are { code, message, todo, retryable } with a status of 4xx or 5xx.
//
// Invariants:
//  R1  Whatever is thrown becomes an answer; a request never ends the process.
//  R2  A page of another site can neither act nor look: what changes something must be JSON (a browser asks before it sends that across sites, and is
//      never told yes), requests that the browser marks as cross-site are refused, and a door that listens on loopback answers to loopback names only.
//  R3  What only looks needs the role `read`, what acts the role `operate` (tokens.ts). Probes, /health and /ready, need none and learn nothing.

import type { IncomingMessage, ServerResponse } from 'node:http';
import { type ErrorCode, MillraceError, messageOf } from '../errors.ts';
import type { JobRun } from '../execution/job-run.ts';
import type { StateQueries } from '../execution/state-queries.ts';
import { readinessOf } from './readiness.ts';
import { answerState, STATE_QUESTIONS } from './state-requests.ts';
import { mayDo, type Role, standingOf, type Tokens } from './tokens.ts';

export type Handler = (request: IncomingMessage, response: ServerResponse) => void;

/** A job behind a door: one that runs here, or the handle on one of a cluster, which has questions about state answered elsewhere. */
export type ShownJob = Pick<
  JobRun,
  | 'id'
  | 'name'
  | 'status'
  | 'finished'
  | 'restoredFrom'
  | 'plan'
  | 'tree'
  | 'metrics'
  | 'checkpoints'
  | 'checkpoint'
  | 'savepoint'
  | 'rescale'
  | 'stop'
  | 'cancel'
> &
  ({ readonly state: Pick<StateQueries, 'list' | 'query' | 'scan' | 'isUnkeyed'> } | { answerState(url: string): Promise<unknown> });

export interface DoorOptions {
  readonly startedAt: number;
  readonly tokens: Tokens | undefined;
}

const BODY_BYTES_MAX = 64 * 1024;
const STARTING_POLL_MS = 20;

/** An error with the status it is answered with. */
interface Refusal {
  readonly status: number;
  readonly error: MillraceError;
}

type Action = 'list' | 'show' | 'state' | 'tree' | 'checkpoints' | 'metrics' | 'checkpoint' | 'savepoint' | 'rescale' | 'stop' | 'cancel';
export type Route =
  | { readonly kind: 'probe'; readonly probe: 'health' | 'ready' }
  | { readonly kind: 'action'; readonly action: Action; readonly job: string | undefined }
  | { readonly kind: 'unknown' }
  | { readonly kind: 'method'; readonly allowed: 'GET' | 'POST' };

const LOOKS = ['tree', 'checkpoints', 'metrics'] as const;
const ACTS = ['checkpoint', 'savepoint', 'rescale', 'stop', 'cancel'] as const;

export function route(method: string, url: string): Route {
  let parts: string[];
  try {
    parts = new URL(url, 'http://door').pathname.split('/').filter((part) => part !== '');
    parts = parts.map(decodeURIComponent);
  } catch {
    return { kind: 'unknown' };
  }
  const [jobs, job, what, ...rest] = parts;
  if ((jobs === 'health' || jobs === 'ready') && job === undefined)
    return method === 'GET' || method === 'HEAD' ? { kind: 'probe', probe: jobs } : { kind: 'method', allowed: 'GET' };
  const question = rest[0];
  if (jobs === 'jobs' && what === 'state' && rest.length <= 1 && (question === undefined || STATE_QUESTIONS.some((name) => name === question)))
    return method === 'GET' || method === 'HEAD' ? { kind: 'action', action: 'state', job } : { kind: 'method', allowed: 'GET' };
  if (jobs !== 'jobs' || rest.length > 0) return { kind: 'unknown' };
  const look = job === undefined ? 'list' : what === undefined ? 'show' : LOOKS.find((name) => name === what);
  if (look !== undefined) return method === 'GET' || method === 'HEAD' ? { kind: 'action', action: look, job } : { kind: 'method', allowed: 'GET' };
  const act = ACTS.find((name) => name === what);
  if (act === undefined) return { kind: 'unknown' };
  return method === 'POST' ? { kind: 'action', action: act, job } : { kind: 'method', allowed: 'POST' };
}

export function handlerOf(run: ShownJob, options: DoorOptions): Handler {
  return (request, response) => {
    const asked = route(request.method ?? 'GET', request.url ?? '/');
    if (asked.kind === 'probe') {
      const readiness = readinessOf(run.status);
      if (asked.probe === 'health') send(request, response, 200, { status: 'ok' });
      else send(request, response, readiness.ready ? 200 : 503, readiness);
      return;
    }
    answer(run, options, request, asked).then(
      (value) => send(request, response, 200, value),
      (error) => {
        const { status, error: said } = refusalOf(error);
        send(request, response, status, said);
      },
    );
  };
}

async function answer(run: ShownJob, options: DoorOptions, request: IncomingMessage, found: Exclude<Route, { kind: 'probe' }>): Promise<unknown> {
  authorize(request, options.tokens, found.kind === 'action' && ACTS.some((name) => name === found.action) ? 'operate' : 'read');
  if (found.kind === 'unknown')
    throw refuse(
      404,
      'CONTROL_NOT_FOUND',
      `There is nothing at ${request.url}.`,
      'Ask for /jobs, /jobs/<name> with tree, checkpoints, metrics or state, /health or /ready.',
    );
  if (found.kind === 'method') throw refuse(405, 'CONTROL_NOT_FOUND', `${request.method} is not possible at ${request.url}.`, `Use ${found.allowed}.`);
  if (found.job !== undefined && found.job !== run.name)
    throw refuse(404, 'JOB_NOT_FOUND', `No job '${found.job}' runs here, but '${run.name}' does.`, 'Look with millrace jobs.');
  const body = request.method === 'POST' ? await bodyOf(request) : {};
  switch (found.action) {
    case 'list':
      return [summary(run, options)];
    case 'show':
      return { ...summary(run, options), restoredFrom: run.restoredFrom ?? null, plan: run.plan };
    case 'tree':
      return run.tree();
    case 'checkpoints':
      return run.checkpoints();
    case 'metrics':
      return run.metrics();
    case 'state':
      await started(run);
      return 'state' in run ? answerState(run.state, request.url ?? '/') : run.answerState(request.url ?? '/');
    case 'checkpoint':
      await started(run);
      return run.checkpoint();
    case 'stop': {
      const drain = body.drain ?? false;
      if (typeof drain !== 'boolean') throw refuse(400, 'OPTION_INVALID', 'drain is true or false.', 'Correct the request.');
      const savepoint = body.savepoint === undefined ? undefined : folderOf(body.savepoint, 'savepoint');
      await started(run);
      return resultOf(await run.stop({ drain, ...(savepoint === undefined ? {} : { savepoint }) }));
    }
    case 'savepoint': {
      const directory = folderOf(body.directory, 'directory');
      await started(run);
      return run.savepoint(directory);
    }
    case 'rescale': {
      const { parallelism } = body;
      if (!Number.isSafeInteger(parallelism)) throw refuse(400, 'OPTION_INVALID', 'parallelism is a whole number.', 'Correct the request.');
      await started(run);
      return run.rescale(parallelism as number);
    }
    case 'cancel':
      await started(run);
      return resultOf(await run.cancel());
  }
}

function summary(run: ShownJob, { startedAt }: DoorOptions) {
  return { id: run.id, name: run.name, status: run.status, startedAt, pid: process.pid };
}

function folderOf(value: unknown, name: string): string {
  if (typeof value === 'string' && value !== '') return value;
  throw refuse(400, 'OPTION_INVALID', `${name} is the path of a folder.`, 'Correct the request.');
}

/** The cause of a job that stopped by policy is an Error, of which JSON would keep nothing. */
function resultOf(result: Awaited<ReturnType<ShownJob['stop']>>) {
  return result.cause === undefined ? result : { ...result, cause: messageOf(result.cause) };
}

/** Until there is something to stop; a start takes milliseconds, and a start that fails is no longer starting. */
async function started(run: ShownJob): Promise<void> {
  while (run.status === 'starting') await new Promise((resolve) => setTimeout(resolve, STARTING_POLL_MS));
}

function authorize(request: IncomingMessage, tokens: Tokens | undefined, needed: Role): void {
  const site = request.headers['sec-fetch-site'];
  // R2. `none` is an address that was typed.
  if (site !== undefined && site !== 'same-origin' && site !== 'none')
    throw refuse(403, 'CONTROL_UNAUTHORIZED', 'A page of another site may not use the control door.', 'Open it directly.');
  const given = /^Bearer (.+)$/i.exec(request.headers.authorization ?? '')?.[1];
  const standing = standingOf(given, tokens);
  if (standing === 'stranger')
    throw refuse(
      401,
      'CONTROL_UNAUTHORIZED',
      `The control door wants a token, and got ${given === undefined ? 'none' : 'another'}.`,
      'Send the token of the job: Authorization: Bearer … (MILLRACE_TOKEN for the command line).',
    );
  if (!mayDo(standing, needed))
    throw refuse(
      403,
      'CONTROL_FORBIDDEN',
      `This token may look at the job, and not act on it: ${request.method} ${request.url}.`,
      'Send the token that may operate.',
    );
  if (request.method === 'POST' && !/^application\/json\b/i.test(request.headers['content-type'] ?? ''))
    throw refuse(415, 'OPTION_INVALID', 'What changes a job must be sent as JSON.', 'Set Content-Type: application/json.');
}

/** R2: a name that a page has made point here (DNS rebinding) is none of these. */
export function isLoopback(host: string): boolean {
  const name = host
    .replace(/:\d+$/, '')
    .replace(/^\[(.*)\]$/, '$1')
    .toLowerCase();
  return name === 'localhost' || name === '::1' || /^127\.\d+\.\d+\.\d+$/.test(name);
}

/** For a door that listens on loopback. */
export function onlyLoopback(handler: Handler): Handler {
  return (request, response) => {
    if (isLoopback(request.headers.host ?? '')) handler(request, response);
    else {
      const { status, error } = refuse(
        403,
        'CONTROL_UNAUTHORIZED',
        `The control door listens on this machine only, and is not '${request.headers.host}'.`,
        'Use 127.0.0.1, or open it with control: { host }.',
      );
      send(request, response, status, error);
    }
  };
}

async function bodyOf(request: IncomingMessage): Promise<Record<string, unknown>> {
  // A service that has parsed the body already leaves it here; the stream is then at its end.
  const parsed = (request as { body?: unknown }).body;
  if (typeof parsed === 'object' && parsed !== null && !Buffer.isBuffer(parsed)) return parsed as Record<string, unknown>;
  const pieces: Buffer[] = [];
  let bytes = 0;
  for await (const piece of request) {
    bytes += (piece as Buffer).length;
    if (bytes > BODY_BYTES_MAX) throw refuse(413, 'OPTION_INVALID', `The request has more than ${BODY_BYTES_MAX} bytes.`, 'Send less.');
    pieces.push(piece as Buffer);
  }
  const text = Buffer.concat(pieces).toString('utf8');
  if (text.trim() === '') return {};
  try {
    const value = JSON.parse(text) as unknown;
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  } catch {
    // Said below, as for every other text that is no object.
  }
  throw refuse(400, 'OPTION_INVALID', 'The request is no JSON object.', 'Send {} or { "drain": true }.');
}

function send(request: IncomingMessage, response: ServerResponse, status: number, value: unknown): void {
  const body = value instanceof Error ? described(value) : value;
  const text = `${JSON.stringify(body, (_, part: unknown) => (typeof part === 'bigint' ? String(part) : part))}\n`;
  response.writeHead(status, {
    'content-type': 'application/json; charset=utf-8',
    'content-length': Buffer.byteLength(text),
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    // A body that was refused half read cannot be followed by another request.
    ...(request.complete ? {} : { connection: 'close' }),
    ...(status === 401 ? { 'www-authenticate': 'Bearer' } : {}),
  });
  response.end(request.method === 'HEAD' ? undefined : text);
}

const STATUS: Partial<Record<ErrorCode, number>> = {
  OPTION_INVALID: 400,
  JOB_ENDED: 409,
  STATE_NOT_FOUND: 404,
  KEY_UNSUPPORTED: 400,
  CHECKPOINTS_OFF: 409,
  SAVEPOINT_EXISTS: 409,
  RESCALE_REFUSED: 409,
};

function refuse(status: number, code: ErrorCode, sentence: string, todo: string): Refusal {
  return { status, error: new MillraceError(code, sentence, { todo }) };
}

function refusalOf(thrown: unknown): Refusal {
  if (typeof thrown === 'object' && thrown !== null && 'status' in thrown && 'error' in thrown) return thrown as Refusal;
  const error = thrown instanceof MillraceError ? thrown : new MillraceError('RUNTIME_FAILED', messageOf(thrown), { cause: thrown });
  return { status: STATUS[error.code] ?? 500, error };
}

function described(error: Error) {
  const { code, todo, retryable } = error as MillraceError;
  const message = todo !== undefined && error.message.endsWith(todo) ? error.message.slice(0, -todo.length).trimEnd() : error.message;
  return { code, message, todo: todo ?? null, retryable };
}
