// The connections of a worker: one to each other worker that it shares channels with, over TCP or TLS.
//
// Who owns what: of two workers the one with the smaller id dials, the other one waits for it, so that there is one connection a pair whoever asks first. Asking is
// `connect`, at both sides. What stands is given to whoever asks; what is lost is told by its `lost`, and only `connect` makes a new one.
//
// Invariants:
//  C1  No frame is read, and no channel made, before the handshake is over at both sides.
//  C2  Of a worker the newest connection counts: the dialer dials again only where its own is gone, so an older one here is dead and is closed as lost.
//  C3  A connection that stood and broke is never made anew behind the channels' backs.
//  C4  Beyond this machine nobody listens without a secret or certificates. Strangers cost little: so many at most may be in their handshake, the oldest goes when another one comes; each has little time; the log is not theirs.
//  C5  Without mail the two are of no use to each other: when its part of the connection closes, whatever for, the connection does.

import { connect as connectTcp, createServer, type Server, type Socket } from 'node:net';
import { connect as connectTls, createServer as createTlsServer, type TLSSocket, type Server as TlsServer } from 'node:tls';
import { asError, codeOf, MillraceError, messageOf } from '../../errors.ts';
import type { Logger } from '../../graph/context.ts';
import { DEFAULT_WAITS, waitBefore } from '../../time/backoff.ts';
import { type Certificates, readCertificates, type TlsOptions, watchCertificates } from './certificates.ts';
import { type Hello, type Introduced, introduce, judge, refused, welcome } from './handshake.ts';
import { FRAME_MAX, type Link, linkLost } from './link.ts';
import { pause } from './pause.ts';
import { RefusalLog } from './refusal-log.ts';
import { RemoteChannels } from './remote-channel.ts';
import { PART_HEAD, SharedLink } from './shared-link.ts';
import { socketLink } from './socket-link.ts';

export interface ConnectionsOptions {
  /** What this worker says of itself, as of now. */
  readonly hello: () => Hello;
  /** Of the cluster; default none. */
  readonly secret?: string | undefined;
  readonly tls?: TlsOptions | undefined;
  /** Where it listens; default 127.0.0.1 and a free port. */
  readonly host?: string | undefined;
  readonly port?: number | undefined;
  readonly log: Logger;
  /** What another worker's `tell` sent. */
  readonly mail?: ((worker: string, message: unknown) => void) | undefined;
  /** A connection stands; before anything has come over it. */
  readonly connected?: ((connection: Connection) => void) | undefined;
  /** Batches of a channel that are sent and not taken; default 8. */
  readonly window?: number | undefined;
  /** Bytes of a frame; default 72 MiB. */
  readonly frameMax?: number | undefined;
  /** Milliseconds between signs of life, and of silence before the other one is taken for dead; default 1 s and 15 s. */
  readonly heartbeat?: number | undefined;
  readonly deadAfter?: number | undefined;
  /** Milliseconds for a handshake; default 5 s. */
  readonly handshake?: number | undefined;
}

/** Another worker, and where it listens. */
export interface Peer {
  readonly worker: string;
  readonly host: string;
  readonly port: number;
}

/** The one connection to another worker. */
export interface Connection {
  /** The other one's id. */
  readonly worker: string;
  /** Channels and mail between the main threads of the two. */
  readonly channels: RemoteChannels;
  /** Settles once it is gone: with the reason, or undefined where one side closed it. */
  readonly lost: Promise<MillraceError | undefined>;
  /** A link within it, for a pair of hosts: the same number at both sides, from 1, used once. */
  part(number: number): Link;
}

export interface ConnectOptions {
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds; default 30 s. */
  readonly giveUpAfter?: number | undefined;
}

/** Strangers in their handshake at one time. */
const PENDING_MAX = 64;

/** What TLS says where a certificate does not fit. */
const CERTIFICATE_CODES = /^(ERR_SSL_|ERR_TLS_|CERT_|UNABLE_TO_|SELF_SIGNED|DEPTH_ZERO|HOSTNAME_|INVALID_CA|PATH_LENGTH)/;

export class Connections {
  readonly #options: ConnectionsOptions;
  readonly #refusals: RefusalLog;
  readonly #standing = new Map<string, { readonly connection: Connection; readonly lose: (why: string) => void; readonly close: () => void }>();
  readonly #dialing = new Map<string, Promise<Connection>>();
  readonly #awaited = new Map<string, Set<(connection: Connection) => void>>();
  readonly #pending = new Set<Socket>();
  readonly #ended = new AbortController();
  #server: Server | undefined;
  #unwatch: (() => void) | undefined;

  constructor(options: ConnectionsOptions) {
    this.#options = options;
    this.#refusals = new RefusalLog(options.log);
  }

  /** Begins to listen. Throws PORT_IN_USE and OPTION_INVALID. */
  async listen(): Promise<{ host: string; port: number }> {
    const { tls, secret = '', host = '127.0.0.1', port = 0, handshake = 5000, log } = this.#options;
    if (tls === undefined && secret === '' && !/^(127\.|::1$|localhost$)/.test(host))
      throw new MillraceError('OPTION_INVALID', `A worker cannot listen at ${host} for anyone who comes.`, {
        todo: 'Give all workers of the cluster a `secret`, or `tls`, or let them listen at 127.0.0.1.',
      });
    let server: Server;
    if (tls === undefined) {
      server = createServer((socket) => void this.#accept(socket));
      server.on('connection', (socket: Socket) => this.#arrived(socket));
    } else {
      const certificates = await readCertificates(tls);
      const secured: TlsServer = createTlsServer({ ...certificates, ...MUTUAL, handshakeTimeout: handshake }, (socket) => void this.#accept(socket));
      secured.on('connection', (socket: Socket) => this.#arrived(socket));
      secured.on('tlsClientError', (error, socket) => this.#refusals.say(addressOf(socket), refused('certificate', addressOf(socket), 'us', error)));
      this.#unwatch = watchCertificates(
        tls,
        certificates,
        (now) => {
          secured.setSecureContext({ ...now, minVersion: MUTUAL.minVersion });
          log.info({}, 'The certificate of this worker was replaced.');
        },
        (error) => log.error({ error: error.message }, 'The new certificate of this worker cannot be used; the last one stays.'),
      );
      server = secured;
    }
    this.#server = server;
    await new Promise<void>((resolve, reject) => {
      server.once('error', (cause: NodeJS.ErrnoException) =>
        reject(
          cause.code === 'EADDRINUSE'
            ? new MillraceError('PORT_IN_USE', `${host}:${port} is in use.`, { todo: 'Choose another `port` for the worker.', cause })
            : new MillraceError('OPTION_INVALID', `A worker cannot listen at ${host}:${port}: ${messageOf(cause)}.`, {
                todo: 'Correct `host` and `port`.',
                cause,
              }),
        ),
      );
      server.listen(port, host, () => resolve());
    });
    server.on('error', (error) => log.error({ error: error.message }, 'The listener of this worker has failed.'));
    const address = server.address() as { address: string; port: number };
    return { host: address.address, port: address.port };
  }

  /**
   * The connection to that worker: the one that stands, or a new one. The other side has to ask as well, or to listen where it has the larger id.
   * Throws LINK_REFUSED at once, and LINK_LOST where it cannot be reached in time.
   */
  async connect(peer: Peer, { signal, giveUpAfter = 30_000 }: ConnectOptions = {}): Promise<Connection> {
    const standing = this.#standing.get(peer.worker);
    if (standing !== undefined) return standing.connection;
    const until = AbortSignal.any([this.#ended.signal, AbortSignal.timeout(giveUpAfter), ...(signal === undefined ? [] : [signal])]);
    if (this.#options.hello().worker > peer.worker) return this.#wait(peer, until);
    const dialing =
      this.#dialing.get(peer.worker) ??
      this.#dial(peer, until).finally(() => {
        this.#dialing.delete(peer.worker);
      });
    this.#dialing.set(peer.worker, dialing);
    return dialing;
  }

  /** Ends every connection, in good order, and the listener. */
  async close(): Promise<void> {
    this.#ended.abort();
    this.#unwatch?.();
    for (const { close } of this.#standing.values()) close();
    for (const socket of this.#pending) socket.destroy();
    const server = this.#server;
    if (server?.listening === true) await new Promise<void>((resolve) => server.close(() => resolve()));
  }

  #wait(peer: Peer, until: AbortSignal): Promise<Connection> {
    const waiting = this.#awaited.get(peer.worker) ?? new Set();
    this.#awaited.set(peer.worker, waiting);
    return new Promise((resolve, reject) => {
      const give = (connection: Connection): void => {
        until.removeEventListener('abort', late);
        resolve(connection);
      };
      const late = (): void => {
        waiting.delete(give);
        reject(linkLost(peer.worker, 'it has not connected in time'));
      };
      waiting.add(give);
      if (until.aborted) late();
      else until.addEventListener('abort', late, { once: true });
    });
  }

  async #dial(peer: Peer, until: AbortSignal): Promise<Connection> {
    const { secret = '', handshake: time, log } = this.#options;
    const name = `${peer.worker} (${peer.host}:${peer.port})`;
    for (let tried = 1; ; tried += 1) {
      try {
        const socket = await this.#open(peer, until);
        const hello = this.#options.hello();
        const end = (): void => void socket.destroy();
        until.addEventListener('abort', end, { once: true });
        try {
          return this.#established(socket, await introduce(socket, name, peer.worker, { hello, secret, time, admit: (theirs) => judge(hello, theirs) }));
        } finally {
          until.removeEventListener('abort', end);
        }
      } catch (cause) {
        const error = certificateError(cause, name) ?? cause;
        if (codeOf(error) === 'LINK_REFUSED' || codeOf(error) === 'OPTION_INVALID') throw error;
        if (until.aborted) throw linkLost(name, `it cannot be reached: ${messageOf(error)}`, error);
        log.warn({ peer: peer.worker, error: messageOf(error) }, `${name} cannot be reached; it is tried again.`);
        await pause(waitBefore(tried, DEFAULT_WAITS, Math.random()), until);
      }
    }
  }

  /** A socket that is connected, and secured. */
  async #open({ host, port }: Peer, until: AbortSignal): Promise<Socket> {
    const { tls } = this.#options;
    const certificates: Certificates | undefined = tls === undefined ? undefined : await readCertificates(tls);
    // While they were read, too.
    until.throwIfAborted();
    return new Promise((resolve, reject) => {
      const socket =
        certificates === undefined ? connectTcp({ host, port }) : connectTls({ host, port, ...certificates, ...MUTUAL, checkServerIdentity: () => undefined });
      const failed = (error: Error): void => {
        until.removeEventListener('abort', aborted);
        socket.destroy();
        reject(error);
      };
      const aborted = (): void => failed(new Error('it took too long'));
      until.addEventListener('abort', aborted, { once: true });
      socket.once('error', failed);
      socket.once(certificates === undefined ? 'connect' : 'secureConnect', () => {
        socket.off('error', failed);
        until.removeEventListener('abort', aborted);
        resolve(socket);
      });
    });
  }

  /** C4. */
  #arrived(socket: Socket): void {
    this.#pending.add(socket);
    socket.on('error', () => {}).once('close', () => this.#pending.delete(socket));
    if (this.#pending.size <= PENDING_MAX) return;
    const [oldest] = this.#pending;
    this.#pending.delete(oldest!);
    oldest!.destroy();
  }

  async #accept(socket: Socket): Promise<void> {
    const { secret = '', handshake: time } = this.#options;
    const address = addressOf(socket);
    const hello = this.#options.hello();
    try {
      const introduced = await welcome(socket, address, {
        hello,
        secret,
        time,
        // Who has the larger id does not dial.
        admit: (theirs) => judge(hello, theirs) ?? (theirs.worker > hello.worker ? 'worker' : undefined),
      });
      // Of a secured connection the socket below is what has arrived.
      for (const pending of this.#pending) if (addressed(pending) === addressed(socket)) this.#pending.delete(pending);
      if (this.#ended.signal.aborted) socket.destroy();
      else this.#established(socket, introduced);
    } catch (cause) {
      const error = asError(cause);
      this.#refusals.say(address, error instanceof MillraceError ? error : linkLost(address, error.message, error));
    }
  }

  #established(socket: Socket, { theirs, read }: Introduced): Connection {
    const { worker } = theirs;
    const { frameMax = FRAME_MAX, heartbeat, deadAfter, window, mail, connected, log } = this.#options;
    const link = socketLink(socket, { peer: worker, frameMax: frameMax + PART_HEAD, heartbeat, deadAfter, read });
    // C2.
    this.#standing.get(worker)?.lose('a newer connection has replaced it');
    const shared = new SharedLink(link);
    // What was read behind the handshake is delivered when its receiver is there, which is before anybody knows of the connection.
    let early: unknown[] | undefined = [];
    const take = (message: unknown): void => {
      if (early === undefined) mail?.(worker, message);
      else early.push(message);
    };
    const channels = new RemoteChannels(shared.part(0), { window, mail: mail === undefined ? undefined : take });
    const connection: Connection = { worker, channels, lost: link.closed, part: (number) => shared.part(number) };
    const standing = { connection, lose: (why: string) => link.close(linkLost(worker, why)), close: () => link.close() };
    this.#standing.set(worker, standing);
    // C5.
    void channels.lost.then((error) => link.close(error));
    void link.closed.then((error) => {
      if (this.#standing.get(worker) === standing) this.#standing.delete(worker);
      if (error !== undefined) log.warn({ peer: worker, code: error.code }, error.sentence);
    });
    connected?.(connection);
    const waiting = early;
    early = undefined;
    for (const message of waiting) mail?.(worker, message);
    for (const give of this.#awaited.get(worker) ?? []) give(connection);
    this.#awaited.delete(worker);
    return connection;
  }
}

const MUTUAL = { requestCert: true, rejectUnauthorized: true, minVersion: 'TLSv1.3' } as const;

function addressOf(socket: Socket | TLSSocket): string {
  return socket.remoteAddress ?? 'a connection that is gone';
}

function addressed({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress} ${remotePort}`;
}

function certificateError(error: unknown, peer: string): MillraceError | undefined {
  for (let at = error; at instanceof Error; at = at.cause) {
    const { code } = at as NodeJS.ErrnoException;
    if (code !== undefined && CERTIFICATE_CODES.test(code)) return refused('certificate', peer, 'us', error);
  }
  return undefined;
}
