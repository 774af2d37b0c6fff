// The three parts of the HTTP connector under one name.

import type { Sink } from '../graph/sink.ts';
import type { Source } from '../graph/source.ts';
import { type HttpEventsOptions, httpEvents } from './http-events.ts';
import { type HttpSinkOptions, httpSink } from './http-sink.ts';
import { type HttpSourceOptions, httpSource } from './http-source.ts';

/**
 * Records over HTTP: taken (webhooks), listened to (server-sent events), and sent. See docs/connectors-http.md.
 * @example
 * const seen = new Promise<{ total: number }>((resolve) => {
 *   const orders = http.source<{ total: number }>({ port: 0, path: '/orders', onListening: ({ url }) => {
 *     void job('send', (env) => void env.fromArray('in', [{ total: 12 }]).sink('out', http.sink({ url }))).run();
 *   } });
 *   void job('take', (env) => void env.source('orders', orders).forEach('seen', resolve)).run({ signal: AbortSignal.timeout(10_000) });
 * });
 * assert.deepEqual(await seen, { total: 12 });
 */
export const http = {
  /**
   * What is POSTed to a port of this process. A request is answered 202 when it is taken, or 200 when a checkpoint holds it (`acknowledge: 'checkpoint'`), 429 while
   * too many wait, 503 where it is not known to be stored: then it must be sent again. The time of a record is when it arrived.
   *
   * @throws OPTION_INVALID; PORT_IN_USE in the job. A body that does not decode is a dead letter.
   * @example
   * const taken = new Promise<string>((resolve) => {
   *   const lines = http.source({ port: 0, path: '/lines', format: text(), onListening: ({ url }) => {
   *     void fetch(url, { method: 'POST', body: 'the mill turns' });
   *   } });
   *   void job('lines', (env) => void env.source('lines', lines).forEach('seen', resolve)).run({ signal: AbortSignal.timeout(10_000) });
   * });
   * assert.equal(await taken, 'the mill turns');
   */
  source: <T>(options: HttpSourceOptions<T>): Source<T> => httpSource(options) as Source<T>,
  /**
   * The data of server-sent events. It goes on behind the last event where the server gives ids and heeds `last-event-id`; ends where it answers 204.
   *
   * @throws OPTION_INVALID; CONNECTION_FAILED, HTTP_REFUSED in the job. Data that does not decode is a dead letter.
   * @example
   * import { createServer } from 'node:http';
   *
   * const server = createServer((request, response) => {
   *   if (request.headers['last-event-id'] === '2') response.writeHead(204).end();
   *   else response.writeHead(200, { 'content-type': 'text/event-stream' }).end('id: 1\ndata: 20\n\nid: 2\ndata: 30\n\n');
   * }).listen(0, '127.0.0.1');
   * await new Promise((resolve) => server.once('listening', resolve));
   * const { port } = server.address() as { port: number };
   * const seen: number[] = [];
   * await job('cpu', (env) => void env.source('cpu', http.events<number>({ url: `http://127.0.0.1:${port}` })).sink('seen', collect(seen))).run();
   * server.closeAllConnections();
   * server.close();
   * assert.deepEqual(seen, [20, 30]);
   */
  events: <T>(options: HttpEventsOptions<T>): Source<T> => httpEvents(options) as Source<T>,
  /**
   * Sends records, one a request or in batches, again where the server is busy or away. At least once; a checkpoint waits for the answers.
   *
   * @throws OPTION_INVALID; CONNECTION_FAILED, HTTP_REFUSED in the job.
   * @example
   * import { createServer } from 'node:http';
   *
   * const bodies: string[] = [];
   * const server = createServer(async (request, response) => {
   *   for await (const part of request) bodies.push(String(part));
   *   response.end();
   * }).listen(0, '127.0.0.1');
   * await new Promise((resolve) => server.once('listening', resolve));
   * const { port } = server.address() as { port: number };
   * await job('send', (env) => void env.fromArray('in', [1, 2, 3]).sink('out', http.sink({ url: `http://127.0.0.1:${port}/numbers`, batch: 3 }))).run();
   * server.closeAllConnections();
   * server.close();
   * assert.deepEqual(bodies, ['1\n2\n3\n']);
   */
  sink: <T>(options: HttpSinkOptions<T>): Sink<T> => httpSink(options),
};
