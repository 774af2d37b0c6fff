// @platformatic/kafka as our Kafka client, an optional peer: its connections, and nothing above them, as with kafkajs (link.ts says why).
//
// 1.22.0 is the newest that runs on Node 20 (later ones of 1.x stand on a package that does not), 2.x runs from Node 22.22 on; what is used of it is the same in both. Its producers work once only with a transactional id; ours are not its.

import net from 'node:net';
import { MillraceError } from '../../errors.ts';
import { peer } from '../peers.ts';
import type { KafkaAdapter, KafkaClient } from './client.ts';
import { connectCluster } from './cluster.ts';
import { closed, notConnected, unreachable } from './errors.ts';
import type { DialOptions, Link, RawCall } from './link.ts';

/**
 * `@platformatic/kafka` as the client library: `npm install` it beside Millrace, 1.22.0 on Node 20, 2.x from Node 22.22 on. Brokers from Kafka 3.1 on; TLS, and SASL with
 * PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512.
 *
 * @throws PACKAGE_MISSING in the job, where the package is not installed.
 * @example
 * assert.equal(platformatic().kind, 'platformatic');
 */
export function platformatic(): KafkaClient {
  const adapter: KafkaAdapter = {
    kind: 'platformatic',
    connect: async (settings) => {
      const library = (await peer('@platformatic/kafka', () => import('@platformatic/kafka'), 'platformatic()')) as unknown as Library;
      return connectCluster((options) => dial(library, options), settings);
    },
  };
  return adapter;
}

interface Connection {
  readonly socket: net.Socket | undefined;
  on(event: string, listener: (error?: Error) => void): void;
  emit(event: string, error: Error): void;
  connect(host: string, port: number): Promise<void>;
  close(): Promise<void>;
  send(
    apiKey: number,
    apiVersion: number,
    createPayload: () => Writer,
    parse: (correlation: number, apiKey: number, apiVersion: number, reader: { readonly buffer: { slice(): Buffer } }) => Buffer,
    taggedRequest: boolean,
    taggedAnswer: boolean,
    callback: (error: Error | null, payload: Buffer) => void,
  ): void;
}

interface Writer {
  append(bytes: Buffer): Writer;
}

interface Library {
  readonly Connection: new (clientId: string, options: object) => Connection;
  readonly Writer: { create(): Writer };
}

async function dial(library: Library, { address, settings, timeoutMs, signal }: DialOptions): Promise<Link> {
  const { host, port } = address;
  const connection = new library.Connection(settings.clientId, {
    connectTimeout: timeoutMs,
    // Whoever sends has a time of its own; here one only keeps a timer for each request.
    requestTimeout: 2 ** 31 - 1,
    maxInflights: 1000,
    ...encryption(settings.ssl, host),
    ...(settings.sasl === undefined ? {} : { sasl: { ...settings.sasl, mechanism: settings.sasl.mechanism.toUpperCase() } }),
  });
  const link = new PlatformaticLink(library, connection, `${host}:${port}`);
  const giveUp = (): void => link.close();
  signal.addEventListener('abort', giveUp);
  try {
    if (signal.aborted) throw closed();
    await connection.connect(host, port);
    connection.socket?.setKeepAlive(true, 60_000);
    return link;
  } catch (error) {
    link.close();
    throw signal.aborted ? closed() : notConnected(error, address);
  } finally {
    signal.removeEventListener('abort', giveUp);
  }
}

function encryption(ssl: boolean | object | undefined, host: string): object {
  if (ssl === undefined || ssl === false) return {};
  return { tls: ssl === true ? {} : ssl, tlsServerName: (ssl as { servername?: string }).servername ?? net.isIP(host) === 0 };
}

class PlatformaticLink implements Link {
  readonly #library: Library;
  readonly #connection: Connection;
  readonly #place: string;
  readonly #waiting = new Set<(error: Error) => void>();
  #closed = false;

  constructor(library: Library, connection: Connection, place: string) {
    this.#library = library;
    this.#connection = connection;
    this.#place = place;
    connection.on('error', () => this.#end());
    connection.on('close', () => this.close());
  }

  get open(): boolean {
    return !this.#closed;
  }

  request({ apiKey, version, flexible, body }: RawCall): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const fail = (error: Error | undefined): void => {
        this.#waiting.delete(fail);
        this.close();
        reject(unreachable(`The connection to ${this.#place} broke off.`, error));
      };
      if (this.#closed) return fail(undefined);
      this.#waiting.add(fail);
      this.#connection.send(
        apiKey,
        version,
        () => this.#library.Writer.create().append(body),
        (_correlation, _apiKey, _apiVersion, reader) => reader.buffer.slice(),
        flexible,
        flexible,
        (error, payload) => {
          if (error !== null && error !== undefined) return fail(error);
          this.#waiting.delete(fail);
          resolve(payload);
        },
      );
    });
  }

  close(): void {
    if (this.#closed) return;
    this.#end();
    // Ends who waits for the connection, and the timer of that: a socket that was never connected does not tell.
    this.#connection.emit('error', new Error('It was closed.'));
  }

  /** Who waits for the connection hears by itself what ended it. */
  #end(): void {
    if (this.#closed) return;
    this.#closed = true;
    const { socket } = this.#connection;
    socket?.on('error', () => {});
    socket?.destroy();
    void this.#connection.close();
    for (const fail of [...this.#waiting]) fail(new MillraceError('KAFKA_CLOSED', 'It was closed.'));
  }
}
