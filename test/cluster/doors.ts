// What stands in front of the listeners of workers in a test, so that two of them can be kept from each other while others reach both: each worker advertises its door,
// and a door reads who dials in what a dialer says of itself.

import { connect, createServer, type Server, type Socket } from 'node:net';

/** Bytes of a greeting: who dials says its name behind it (src/cluster/transport/handshake.ts). */
const GREETING = 38;
const LENGTH = 4;

interface Passage {
  readonly near: Socket;
  readonly far: Socket;
  readonly owner: string;
  /** The id of the worker that dials, once it has said so. */
  dialer: string | undefined;
}

/** Doors of several workers, each by a name that it keeps when its process does not. */
export class Doors {
  readonly #servers = new Map<string, Server>();
  readonly #passages = new Set<Passage>();
  /** By id of a worker: the name of its door. */
  readonly #names = new Map<string, string>();
  readonly #apart = new Set<string>();

  /** The address to advertise for the worker that listens at that port. */
  async open(name: string, port: number): Promise<string> {
    const server = createServer((near) => this.#pass(name, near, port));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    this.#servers.set(name, server);
    return this.address(name);
  }

  address(name: string): string {
    return `127.0.0.1:${(this.#servers.get(name)!.address() as { port: number }).port}`;
  }

  /** The worker with that id is behind the door of that name. */
  known(id: string, name: string): void {
    this.#names.set(id, name);
    this.#settle();
  }

  /** Nothing gets from one to the other any more, as over a network that has lost its way: nothing is closed, nothing comes. Returns how many connections that meets. */
  part(one: string, other: string): number {
    const pair = pairOf(one, other);
    this.#apart.add(pair);
    this.#settle();
    return [...this.#passages].filter(({ owner, dialer }) => dialer !== undefined && pairOf(owner, this.#names.get(dialer) ?? '') === pair).length;
  }

  /** What was held back goes on where its connection still stands. */
  mend(): void {
    this.#apart.clear();
    this.#settle();
  }

  close(): void {
    for (const { near, far } of this.#passages) {
      near.destroy();
      far.destroy();
    }
    for (const server of this.#servers.values()) server.close();
  }

  #pass(owner: string, near: Socket, port: number): void {
    const far = connect({ host: '127.0.0.1', port });
    const passage: Passage = { near, far, owner, dialer: undefined };
    this.#passages.add(passage);
    const end = (): void => {
      this.#passages.delete(passage);
      near.destroy();
      far.destroy();
    };
    for (const socket of [near, far]) socket.on('error', () => {}).on('close', end);
    let head = Buffer.alloc(0);
    near.on('data', (bytes: Buffer) => {
      if (passage.dialer === undefined) {
        head = Buffer.concat([head, bytes]);
        passage.dialer = dialerIn(head);
        this.#hold(passage);
      }
      far.write(bytes);
    });
    far.on('data', (bytes: Buffer) => near.write(bytes));
  }

  #settle(): void {
    for (const passage of this.#passages) this.#hold(passage);
  }

  #hold({ near, far, owner, dialer }: Passage): void {
    const name = dialer === undefined ? undefined : this.#names.get(dialer);
    if (name === undefined) return;
    for (const socket of [near, far]) {
      if (this.#apart.has(pairOf(owner, name))) socket.pause();
      else socket.resume();
    }
  }
}

function pairOf(one: string, other: string): string {
  return [one, other].sort().join(' ');
}

function dialerIn(head: Buffer): string | undefined {
  if (head.length < GREETING + LENGTH) return undefined;
  const length = head.readUInt32LE(GREETING);
  if (head.length < GREETING + LENGTH + length) return undefined;
  return (JSON.parse(head.toString('utf8', GREETING + LENGTH, GREETING + LENGTH + length)) as { worker: string }).worker;
}
