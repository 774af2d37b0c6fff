// kafkajs 2.2.4 as our Kafka client, the default: its connections, and nothing above them.
//
// What: kafkajs has no public way to read a partition without a group, to fence a transactional id by itself or to ask for a topic's id, and its own layers for
// these hide what a stream processor has to know. So we take from inside of it what opens a socket, speaks TLS and SASL and numbers requests, and send our own
// requests over that (link.ts). This is the one file that knows its insides; the version is pinned exactly.
//
// What is corrected here, of the version that will not change any more:
//  - sockets without TCP_NODELAY: small requests waited for the acknowledgement of those before;
//  - `disconnect` waits for answers under way, for ever where a broker is stopped: we end the socket itself;
//  - a socket that closes without 'end' leaves its requests waiting;
//  - a timer with a negative time at every answer (`TimeoutNegativeWarning` on newer Node): its queue is never throttled under us, so it needs none.

import { createRequire } from 'node:module';
import net from 'node:net';
import tls from 'node:tls';
import type { KafkaAdapter, KafkaClient } from './client.ts';
import { connectCluster } from './cluster.ts';
import { closed, notConnected, unreachable } from './errors.ts';
import type { DialOptions, Link, RawCall } from './link.ts';

/**
 * The client library that `kafka` uses unless it is given another: kafkajs, which comes with Millrace. Brokers from Kafka 3.1 on; TLS, and SASL with PLAIN,
 * SCRAM-SHA-256 and SCRAM-SHA-512.
 * @example
 * assert.equal(kafkajs().kind, 'kafkajs');
 */
export function kafkajs(): KafkaClient {
  const adapter: KafkaAdapter = { kind: 'kafkajs', connect: (settings) => connectCluster(dial, settings) };
  return adapter;
}

interface Connection {
  requestQueue: { scheduleCheckPendingRequests(): void; destroy(): void };
  connect(): Promise<unknown>;
  isConnected(): boolean;
  isAuthenticated(): boolean;
  getSupportAuthenticationProtocol(): boolean | null;
  setSupportAuthenticationProtocol(is: boolean): void;
  setVersions(versions: unknown): void;
  rejectRequests(error: Error): void;
  send(call: { request: unknown; response: { decode(payload: Buffer): Promise<Buffer>; parse(payload: Buffer): Promise<Buffer> } }): Promise<Buffer>;
}

/** What kafkajs asks of who opens its sockets. */
interface Wanted {
  readonly host: string;
  readonly port: number;
  readonly ssl: object | boolean | null;
  readonly onConnect: () => void;
}

interface Encoder {
  writeBufferInternal(bytes: Buffer): void;
}

interface Insides {
  readonly Connection: new (options: object) => Connection;
  readonly Broker: new (options: object) => { connect(): Promise<void> };
  readonly Encoder: new (bytes: number) => Encoder;
  readonly silent: object;
}

let loaded: Insides | undefined;

/** Not before they are used: programs without Kafka do not pay for it. */
function insides(): Insides {
  if (loaded !== undefined) return loaded;
  const require = createRequire(import.meta.url);
  const { createLogger, LEVELS } = require('kafkajs/src/loggers') as { createLogger(options: object): object; LEVELS: { NOTHING: number } };
  loaded = {
    Connection: require('kafkajs/src/network/connection') as Insides['Connection'],
    Broker: require('kafkajs/src/broker') as Insides['Broker'],
    Encoder: require('kafkajs/src/protocol/encoder') as Insides['Encoder'],
    // What goes wrong is said in our errors, once.
    silent: createLogger({ level: LEVELS.NOTHING, logCreator: () => () => {} }),
  };
  return loaded;
}

async function dial({ address, settings, timeoutMs, signal }: DialOptions): Promise<Link> {
  const link = new KafkajsLink({ address, settings, timeoutMs });
  const giveUp = (): void => link.close();
  signal.addEventListener('abort', giveUp);
  try {
    await link.ready();
    return link;
  } catch (error) {
    link.close();
    throw signal.aborted ? closed() : notConnected(error, address);
  } finally {
    signal.removeEventListener('abort', giveUp);
  }
}

class KafkajsLink implements Link {
  readonly #connection: Connection;
  readonly #broker: { connect(): Promise<void> };
  readonly #place: string;
  #socket: net.Socket | undefined;
  #failed: ((error: Error) => void) | undefined;
  #closed = false;

  constructor({ address, settings, timeoutMs }: Omit<DialOptions, 'signal'>) {
    const { host, port } = address;
    this.#place = `${host}:${port}`;
    const { Connection, Broker, silent } = insides();
    const options = {
      host,
      port,
      clientId: settings.clientId,
      ssl: settings.ssl ?? null,
      // It writes into what it is given.
      sasl: settings.sasl === undefined ? undefined : { ...settings.sasl },
      logger: silent,
      connectionTimeout: timeoutMs,
      requestTimeout: timeoutMs,
      enforceRequestTimeout: false,
      socketFactory: (wanted: Wanted) => this.#open(wanted),
    };
    const connection = new Connection(options);
    connection.requestQueue.scheduleCheckPendingRequests = () => {};
    this.#connection = connection;
    const pool = {
      host,
      port,
      sasl: options.sasl,
      connectionTimeout: timeoutMs,
      isConnected: () => connection.isConnected(),
      isAuthenticated: () => connection.isAuthenticated(),
      setVersions: (versions: unknown) => connection.setVersions(versions),
      setSupportAuthenticationProtocol: (is: boolean) => connection.setSupportAuthenticationProtocol(is),
      getConnection: async () => {
        await connection.connect();
        return connection;
      },
      send: (call: Parameters<Connection['send']>[0]) => connection.send(call),
    };
    this.#broker = new Broker({ connectionPool: pool, logger: silent, authenticationTimeout: timeoutMs });
  }

  get open(): boolean {
    return !this.#closed;
  }

  /** Its own promises do not settle when the socket closes while it connects. */
  async ready(): Promise<void> {
    const failed = new Promise<never>((_, reject) => {
      this.#failed = reject;
    });
    try {
      await Promise.race([this.#broker.connect(), failed]);
    } finally {
      this.#failed = undefined;
    }
  }

  async request({ apiKey, name, version, flexible, body }: RawCall): Promise<Buffer> {
    if (this.#closed) throw unreachable(`The connection to ${this.#place} is closed.`, undefined);
    const { Encoder } = insides();
    const encoder = new Encoder(body.length + 1);
    // The header of a flexible request ends with tagged fields, which kafkajs does not know of.
    if (flexible) encoder.writeBufferInternal(NO_TAGS);
    encoder.writeBufferInternal(body);
    try {
      return await this.#connection.send({
        request: { apiKey, apiName: name, apiVersion: version, encode: async () => encoder },
        response: { decode: async (payload) => payload, parse: async (payload) => (flexible ? payload.subarray(1) : payload) },
      });
    } catch (error) {
      this.close();
      throw unreachable(`The connection to ${this.#place} broke off.`, error);
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#end(new Error('It was closed.'));
    this.#socket?.destroy();
  }

  #open({ host, port, ssl, onConnect }: Wanted): net.Socket {
    const named = net.isIP(host) === 0 ? { servername: host } : {};
    const encrypted = ssl === null || ssl === false ? undefined : { host, port, ...named, ...(ssl === true ? {} : ssl) };
    const socket = encrypted === undefined ? net.connect({ host, port }, onConnect) : tls.connect(encrypted, onConnect);
    socket.setNoDelay(true);
    socket.setKeepAlive(true, 60_000);
    let cause: Error | undefined;
    socket.on('error', (error) => {
      cause = error;
    });
    socket.once('close', () => {
      this.#closed = true;
      this.#end(cause ?? new Error('The broker closed the connection.'));
    });
    this.#socket = socket;
    return socket;
  }

  #end(error: Error): void {
    this.#failed?.(error);
    this.#connection.rejectRequests(error);
    this.#connection.requestQueue.destroy();
  }
}

const NO_TAGS = Buffer.from([0]);
