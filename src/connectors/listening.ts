// Listening on a port for as long as an attempt lasts.
//
// Invariant L1: the port is free again in the turn in which the attempt ends, so that the next attempt of the same process finds it; where it is still taken
// (by the process before, which ends) it is tried again for a while.

import type { AddressInfo, Server } from 'node:net';
import { MillraceError, messageOf } from '../errors.ts';
import type { Logger } from '../graph/context.ts';
import type { Io } from '../runtime/io.ts';
import { pause } from './pause.ts';

/** Where something listens. */
export interface ListeningAddress {
  readonly host: string;
  readonly port: number;
}

const TRIES = 50;
const TRY_EVERY_MS = 100;

/** Resolves with the address when the server listens; it stops doing so when the signal aborts. Undefined: it has. */
export async function listening(
  server: Server,
  address: ListeningAddress,
  { uid, signal, log }: { readonly uid: string; readonly signal: AbortSignal; readonly log: Logger },
  io: Pick<Io, 'clock'>,
): Promise<ListeningAddress | undefined> {
  signal.addEventListener('abort', () => void server.close());
  for (let tried = 1; !signal.aborted; tried += 1) {
    try {
      await new Promise<void>((resolve, reject) => {
        const settle = (error?: Error): void => {
          server.off('error', settle);
          server.off('listening', settle);
          server.off('close', settle);
          if (error === undefined) resolve();
          else reject(error);
        };
        server.on('error', settle);
        server.on('listening', settle);
        server.on('close', settle);
        server.listen(address.port, address.host);
      });
      // One connection that cannot be accepted (too many open files) must not end the process: the sender sees it, and so does the log.
      server.on('error', (error) => log.warn({ uid, error: error.message }, 'A connection could not be accepted.'));
      const bound = server.address() as AddressInfo | null;
      return bound === null ? undefined : { host: bound.address, port: bound.port };
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code !== 'EADDRINUSE' || tried === TRIES) throw refused(address, uid, error);
    }
    await pause(TRY_EVERY_MS, signal, io.clock);
  }
  return undefined;
}

function refused({ host, port }: ListeningAddress, uid: string, cause: unknown): MillraceError {
  if ((cause as NodeJS.ErrnoException).code === 'EADDRINUSE') {
    return new MillraceError('PORT_IN_USE', `Port ${port} of ${host} is taken.`, {
      todo: 'Give the source another port, or stop what listens there.',
      uid,
      cause,
    });
  }
  return new MillraceError('SOURCE_FAILED', `Nothing can listen on port ${port} of ${host}: ${messageOf(cause)}.`, {
    todo: 'Correct host and port.',
    uid,
    cause,
  });
}
