// What stands between a client and its server in a test: it holds bytes back, loses answers, or cuts the line.

import { connect, createServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer, type TlsOptions } from 'node:tls';
import { addressOf } from '../../../src/cluster/zookeeper/wire.ts';

export class TcpProxy {
  readonly #server: Server;
  readonly #target: { readonly host: string; readonly port: number };
  readonly #pairs = new Set<{ readonly near: Socket; readonly far: Socket }>();
  #open = true;
  #stalled = false;
  #losing: ((bytes: Buffer) => boolean) | undefined;

  private constructor(target: string, tls: TlsOptions | undefined) {
    this.#target = addressOf(target);
    const accept = (near: Socket): void => this.#accept(near);
    this.#server = tls === undefined ? createServer(accept) : createTlsServer(tls, accept);
  }

  /** With `tls` clients come by that, and the target is spoken to without. */
  static async start(target: string, tls?: TlsOptions): Promise<TcpProxy> {
    const proxy = new TcpProxy(target, tls);
    await new Promise<void>((resolve) => proxy.#server.listen(0, '127.0.0.1', resolve));
    return proxy;
  }

  get connect(): string {
    return `127.0.0.1:${(this.#server.address() as { port: number }).port}`;
  }

  /** Nothing gets through, and new connections are closed, until `mend`. The server sees the connection end. */
  cut(): void {
    this.#open = false;
    for (const { near, far } of this.#pairs) {
      near.destroy();
      far.destroy();
    }
  }
  mend(): void {
    this.#open = true;
    this.#stalled = false;
    this.#losing = undefined;
    for (const { near, far } of this.#pairs) {
      near.resume();
      far.resume();
    }
  }
  /** Both sides wait, as if nobody was there, until `mend`; connections stay, and new ones are taken. */
  stall(): void {
    this.#stalled = true;
    for (const { near, far } of this.#pairs) {
      near.pause();
      far.pause();
    }
  }
  /** The next request that holds those bytes gets to the server, its answer does not come back: the line is cut when it would. Resolves then. */
  loseAnswerTo(bytes: string): Promise<void> {
    return new Promise((resolve) => {
      let passed = false;
      this.#losing = (chunk) => {
        if (!passed) {
          passed = chunk.includes(bytes);
          return false;
        }
        return true;
      };
      this.#lost = resolve;
    });
  }
  #lost: (() => void) | undefined;

  /** The next request that holds those bytes does not get to the server: the line is cut instead, and stays so until `mend`. Resolves then. */
  loseRequest(bytes: string): Promise<void> {
    return new Promise((resolve) => {
      this.#dropping = (chunk) => {
        if (!chunk.includes(bytes)) return false;
        this.#dropping = undefined;
        this.cut();
        resolve();
        return true;
      };
    });
  }
  #dropping: ((bytes: Buffer) => boolean) | undefined;

  close(): void {
    this.cut();
    this.#server.close();
  }

  #accept(near: Socket): void {
    near.on('error', () => {});
    if (!this.#open) {
      near.destroy();
      return;
    }
    const far = connect(this.#target);
    far.on('error', () => {});
    const pair = { near, far };
    this.#pairs.add(pair);
    const end = (): void => {
      this.#pairs.delete(pair);
      near.destroy();
      far.destroy();
    };
    near.on('close', end);
    far.on('close', end);
    near.on('data', (bytes) => {
      if (this.#dropping?.(bytes) === true) return;
      this.#losing?.(bytes);
      far.write(bytes);
    });
    far.on('data', (bytes) => {
      if (this.#losing?.(Buffer.alloc(0)) === true) {
        this.#losing = undefined;
        end();
        this.#lost?.();
        return;
      }
      near.write(bytes);
    });
    if (this.#stalled) {
      near.pause();
      far.pause();
    }
  }
}
