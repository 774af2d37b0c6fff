// The two halves of the TCP connector under one name.

import type { Sink } from '../graph/sink.ts';
import type { Source } from '../graph/source.ts';
import { type TcpSinkOptions, tcpSink } from './tcp-sink.ts';
import { type TcpSourceOptions, tcpSource } from './tcp-source.ts';

/**
 * Records over TCP, as lines or framed by their length. Nothing is acknowledged and nothing comes again: see docs/connectors-tcp.md.
 * @example
 * const seen: string[] = [];
 * const source = tcp.source({ host: '127.0.0.1', port: 0, listen: true, format: text(), onListening: ({ host, port }) => {
 *   void job('send', (env) => void env.fromArray('words', ['the', 'mill']).sink('out', tcp.sink({ host, port, format: text() }))).run();
 * } });
 * const arrived = new Promise<void>((resolve) => {
 *   void job('receive', (env) => void env.source('words', source).forEach('seen', (word) => {
 *     if (seen.push(word) === 2) resolve();
 *   })).run({ signal: AbortSignal.timeout(10_000) });
 * });
 * await arrived;
 * assert.deepEqual(seen, ['the', 'mill']);
 */
export const tcp = {
  /**
   * Records of a connection that it opens, and opens again where it is lost, or of all that others open to it (`listen`). Not replayed: what came since the last
   * checkpoint is lost with a crash. The time of a record is when it arrived.
   *
   * @throws OPTION_INVALID; CONNECTION_FAILED, PORT_IN_USE in the job. A record that does not decode is a dead letter.
   * @example
   * import { createServer } from 'node:net';
   *
   * const server = createServer((socket) => socket.end('{"cpu":20}\n{"cpu":30}\n')).listen(0, '127.0.0.1');
   * await new Promise((resolve) => server.once('listening', resolve));
   * const { port } = server.address() as { port: number };
   * const seen: { cpu: number }[] = [];
   * await job('cpu', (env) => {
   *   env.source('cpu', tcp.source<{ cpu: number }>({ host: '127.0.0.1', port, untilClosed: true })).sink('seen', collect(seen));
   * }).run();
   * server.close();
   * assert.deepEqual(seen, [{ cpu: 20 }, { cpu: 30 }]);
   */
  source: <T>(options: TcpSourceOptions<T>): Source<T> => tcpSource(options) as Source<T>,
  /**
   * Records into a connection, which is opened again where it is lost. A checkpoint waits until everything was handed to the system.
   *
   * @throws OPTION_INVALID; CONNECTION_FAILED in the job.
   * @example
   * import { createServer } from 'node:net';
   *
   * let received = '';
   * const server = createServer((socket) => socket.setEncoding('utf8').on('data', (part: string) => (received += part))).listen(0, '127.0.0.1');
   * await new Promise((resolve) => server.once('listening', resolve));
   * const { port } = server.address() as { port: number };
   * const ended = new Promise((resolve) => server.once('connection', (socket) => socket.once('end', resolve)));
   * await job('send', (env) => void env.fromArray('in', [{ cpu: 20 }]).sink('out', tcp.sink({ host: '127.0.0.1', port }))).run();
   * await ended;
   * server.close();
   * assert.equal(received, '{"cpu":20}\n');
   */
  sink: <T>(options: TcpSinkOptions<T>): Sink<T> => tcpSink(options),
};
