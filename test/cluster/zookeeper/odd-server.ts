// A server that speaks just enough of the protocol to misbehave: it grants a session, and answers each request as it is told to.

import { createServer, type Server, type Socket } from 'node:net';

export type Answer = (xid: number, socket: Socket) => void;

export class OddServer {
  readonly #server: Server;
  readonly #answers: Answer[];
  connections = 0;
  /** How many connections end when something is asked, before there is a session. */
  mute = 0;

  private constructor(answers: Answer[]) {
    this.#answers = answers;
    this.#server = createServer((socket) => this.#accept(socket));
  }

  /** One request after the other is answered so; the rest with «done», and no payload. */
  static async start(answers: Answer[]): Promise<OddServer> {
    const server = new OddServer([...answers]);
    await new Promise<void>((resolve) => server.#server.listen(0, '127.0.0.1', resolve));
    return server;
  }

  get connect(): string {
    return `127.0.0.1:${(this.#server.address() as { port: number }).port}`;
  }

  close(): void {
    this.#server.close();
  }

  #accept(socket: Socket): void {
    this.connections += 1;
    socket.on('error', () => {});
    if (this.mute > 0) {
      this.mute -= 1;
      socket.once('data', () => socket.destroy());
      return;
    }
    let held: Buffer = Buffer.alloc(0);
    let first = true;
    socket.on('data', (bytes) => {
      held = Buffer.concat([held, bytes]);
      while (held.length >= 4 && held.length >= 4 + held.readInt32BE()) {
        const frame = held.subarray(4, 4 + held.readInt32BE());
        held = held.subarray(4 + frame.length);
        if (first) {
          first = false;
          socket.write(granted());
        } else {
          const xid = frame.readInt32BE();
          (this.#answers.shift() ?? said(0))(xid, socket);
        }
      }
    });
  }
}

/** An answer with that error and no payload. */
export function said(error: number): Answer {
  return (xid, socket) => void socket.write(reply(xid, error));
}

/** Half of an answer, and then the end. */
export const half: Answer = (xid, socket) => void socket.end(reply(xid, 0).subarray(0, 11));

/** Bytes that mean nothing. */
export const garbage: Answer = (_xid, socket) => void socket.write(Buffer.from([0, 0, 0, 16, ...Array.from({ length: 16 }, () => 0xee)]));

function reply(xid: number, error: number): Buffer {
  const bytes = Buffer.alloc(20);
  bytes.writeInt32BE(16, 0);
  bytes.writeInt32BE(xid, 4);
  bytes.writeBigInt64BE(1n, 8);
  bytes.writeInt32BE(error, 16);
  return bytes;
}

function granted(): Buffer {
  const bytes = Buffer.alloc(4 + 4 + 4 + 8 + 4 + 16 + 1);
  bytes.writeInt32BE(bytes.length - 4, 0);
  bytes.writeInt32BE(4000, 8);
  bytes.writeBigInt64BE(7n, 12);
  bytes.writeInt32BE(16, 20);
  return bytes;
}
