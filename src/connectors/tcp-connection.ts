// Connecting to a TCP server, again and again until it answers or patience is over.
//
// Invariant T1: `connected` ends when the signal aborts, when a connection stands, or when `giveUpAfter` is over: no wait is for ever but the one that was asked for
// (`Infinity`).

import { connect, type Socket } from 'node:net';
import { MillraceError, messageOf } from '../errors.ts';
import type { Logger } from '../graph/context.ts';
import type { Io } from '../runtime/io.ts';
import { DEFAULT_WAITS, waitBefore } from '../time/backoff.ts';
import { pause } from './pause.ts';

/** Where a server is, and how long it is waited for. */
export interface TcpAddress {
  host: string;
  port: number;
  /** How long, in milliseconds, the other side may be away before the job fails with CONNECTION_FAILED; a minute by default, Infinity: for ever. */
  giveUpAfter?: number;
}

export interface ConnectionContext {
  readonly uid: string;
  readonly signal: AbortSignal;
  readonly log: Logger;
}

const KEEP_ALIVE_MS = 30_000;

export function checkedAddress({ host, port, giveUpAfter }: TcpAddress, what: string): void {
  if (typeof host !== 'string' || host === '' || !Number.isInteger(port) || port < 0 || port > 65_535)
    throw new MillraceError('OPTION_INVALID', `${what} has no address in '${host}' and ${port}.`, { todo: 'Give a host, and a port up to 65535.' });
  if (giveUpAfter !== undefined && !(giveUpAfter >= 0))
    throw new MillraceError('OPTION_INVALID', `giveUpAfter of ${what} is ${giveUpAfter}.`, { todo: 'Give milliseconds, or Infinity.' });
}

/** Undefined: the signal has aborted. */
export async function connected({ host, port, giveUpAfter = 60_000 }: TcpAddress, context: ConnectionContext, io: Io): Promise<Socket | undefined> {
  const { uid, signal, log } = context;
  const since = io.clock.now();
  for (let tried = 1; !signal.aborted; tried += 1) {
    try {
      return await oneConnection(host, port, signal);
    } catch (error) {
      if (signal.aborted) return undefined;
      const away = io.clock.now() - since;
      if (away >= giveUpAfter) {
        throw new MillraceError('CONNECTION_FAILED', `${host}:${port} cannot be reached: ${messageOf(error)}.`, {
          todo: 'Does it run, and are host and port right?',
          uid,
          cause: error,
        });
      }
      const wait = Math.min(waitBefore(tried, DEFAULT_WAITS, io.random()), giveUpAfter - away);
      log.warn({ uid, error: messageOf(error) }, `${host}:${port} does not answer; it is tried again in ${Math.ceil(wait)} ms.`);
      await pause(wait, signal, io.clock);
    }
  }
  return undefined;
}

function oneConnection(host: string, port: number, signal: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port });
    const abort = (): void => void socket.destroy(new Error('the attempt has ended'));
    const settle = (error?: Error): void => {
      socket.off('connect', settle);
      socket.off('error', settle);
      signal.removeEventListener('abort', abort);
      if (error === undefined) resolve(socket);
      else reject(error);
    };
    socket.setKeepAlive(true, KEEP_ALIVE_MS);
    socket.on('connect', settle);
    socket.on('error', settle);
    signal.addEventListener('abort', abort);
  });
}
