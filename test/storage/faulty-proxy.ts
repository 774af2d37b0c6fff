// A proxy in front of a server: it passes requests on, or does to them what networks and servers do.

import { type ClientRequest, createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';

/**
 * `refuse`: the connection is cut before anything is passed on. `lose`: the request has its effect, and the connection is cut instead of the answer. `cut`: half of the
 * answer's body comes. A number: that status is answered, with `code`.
 */
export type Fault = 'refuse' | 'lose' | 'cut' | 'hang' | { readonly status: number; readonly code?: string; readonly headers?: Record<string, string> };

export class FaultyProxy {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  /** What is done to the next requests; undefined passes one on. Asked once for each. */
  decide: (request: { readonly method: string; readonly url: string }) => Fault | undefined = () => undefined;
  requests = 0;

  private constructor(server: Server) {
    this.#server = server;
    server.on('connection', (socket: Socket) => {
      this.#sockets.add(socket);
      socket.once('close', () => this.#sockets.delete(socket));
    });
  }

  static async start(target: { readonly port: number }): Promise<FaultyProxy> {
    const server = createServer((incoming, outgoing) => proxy.#handle(incoming, outgoing, target.port));
    const proxy: FaultyProxy = new FaultyProxy(server);
    await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve));
    return proxy;
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Every connection ends now. */
  cutAll(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  #handle(incoming: IncomingMessage, outgoing: ServerResponse, port: number): void {
    this.requests += 1;
    const fault = this.decide({ method: incoming.method!, url: incoming.url! });
    if (fault === 'refuse') {
      incoming.socket.destroy();
      return;
    }
    if (fault === 'hang') return;
    if (typeof fault === 'object') {
      incoming.resume();
      incoming.on('end', () => {
        outgoing.writeHead(fault.status, fault.headers);
        outgoing.end(fault.code === undefined ? '' : `<?xml version="1.0"?><Error><Code>${fault.code}</Code><Message>As the test wants it.</Message></Error>`);
      });
      return;
    }
    const onward: ClientRequest = request({ host: '127.0.0.1', port, method: incoming.method, path: incoming.url, headers: incoming.headers }, (answer) => {
      if (fault === 'lose') {
        answer.resume();
        answer.on('end', () => incoming.socket.destroy());
        return;
      }
      outgoing.writeHead(answer.statusCode!, answer.headers);
      if (fault !== 'cut') {
        answer.pipe(outgoing);
        return;
      }
      const half = Number(answer.headers['content-length'] ?? 0) / 2;
      let passed = 0;
      answer.on('data', (part: Buffer) => {
        passed += part.length;
        if (passed <= half) outgoing.write(part);
        else incoming.socket.destroy();
      });
      answer.on('end', () => incoming.socket.destroy());
    });
    onward.on('error', () => incoming.socket.destroy());
    incoming.pipe(onward);
  }

  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.cutAll();
    await closed;
  }
}
