// The control door of a job: a request handler for any node:http server, and a server of its own where `control` asks for one.
//
// Who owns what: the door owns its server and its discovery file, from before the start of the job to its end. What is answered stands in requests.ts.
//
// Invariants:
//  O1  The port is taken before the job starts: a job that cannot have it does not run.
//  O2  At the job's end, and when its start fails, nothing is left: no socket, no file. Answers under way are sent first.
//  O3  Where others than this machine reach it, it has a token, or it is not opened. No token is ever written down.

import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { MillraceError, messageOf } from '../errors.ts';
import { SILENT } from '../graph/context.ts';
import type { RunOptions } from '../graph/job.ts';
import { announce } from './discovery.ts';
import { type Handler, handlerOf, isLoopback, onlyLoopback, type ShownJob } from './requests.ts';
import { refuseOpen, tokensOf } from './tokens.ts';

export interface Door {
  readonly handler: Handler;
  /** Where it listens, if it does. */
  readonly controlUrl: string | undefined;
}

export async function openDoor<R extends ShownJob>(run: R, options: RunOptions): Promise<R & Door> {
  const { control = false, logger = SILENT } = options;
  const startedAt = Date.now();
  const tokens = control === false ? undefined : tokensOf(control.token);
  const handler = handlerOf(run, { startedAt, tokens });
  if (control === false) return Object.assign(run, { handler, controlUrl: undefined });

  const host = control.host ?? '127.0.0.1';
  const isThisMachine = isLoopback(hostPart(host));
  // O3.
  refuseOpen(host, isThisMachine, tokens);
  const server = createServer(isThisMachine ? onlyLoopback(handler) : handler);
  await listen(server, host, control.port ?? 0);
  const controlUrl = urlOf(server.address() as AddressInfo);
  let withdraw = (): void => {};
  try {
    withdraw = announce({ job: run.name, id: run.id, pid: process.pid, url: controlUrl, startedAt });
  } catch (error) {
    // The job matters more than being found: whoever knows the address still reaches it.
    logger.warn({ error: messageOf(error) }, `The job '${run.name}' cannot be found by millrace jobs: ${messageOf(error)}`);
  }
  const close = (): void => {
    withdraw();
    server.close();
    server.closeIdleConnections();
  };
  run.finished.then(close, close);
  return Object.assign(run, { handler, controlUrl });
}

function listen(server: Server, host: string, port: number): Promise<void> {
  if (!Number.isInteger(port) || port < 0 || port > 65_535)
    return Promise.reject(new MillraceError('OPTION_INVALID', `${port} is no port.`, { todo: 'Use 0 for a free one, or 1 to 65535.' }));
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EADDRINUSE')
        reject(
          new MillraceError('PORT_IN_USE', `The port ${port} of ${host} is taken.`, {
            cause: error,
            todo: 'Choose another with --port (control.port), or 0 for a free one.',
          }),
        );
      else
        reject(
          new MillraceError('OPTION_INVALID', `The control door cannot listen on ${host}, port ${port}: ${error.message}.`, {
            cause: error,
            todo: 'Correct control.host and control.port.',
          }),
        );
    });
    server.listen(port, host, () => {
      server.removeAllListeners('error');
      // Errors of single connections come from clients; the server goes on.
      server.on('error', () => {});
      resolve();
    });
  });
}

function urlOf({ address, port }: AddressInfo): string {
  const host = address === '0.0.0.0' || address === '::' ? '127.0.0.1' : address;
  return `http://${hostPart(host)}:${port}`;
}

function hostPart(host: string): string {
  return host.includes(':') ? `[${host}]` : host;
}
