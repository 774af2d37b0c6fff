// The TCP sink: records into a socket.
//
// There is nobody who acknowledges: what was handed to the system (`flush` waits for that) and was not read by the other side when the connection broke is lost, and
// nobody can say how much that was. What had not been handed over is sent again over the next connection; behind a restart records come again from the last
// checkpoint. So it is neither at least once nor at most once where connections break; the other side that needs more should be asked over HTTP.
//
// Invariants:
//  T5  A connection begins with a whole record (and with the line of columns, where the format has one).
//  T6  `write` holds the job back while more than a megabyte waits; nothing waits for a connection longer than `giveUpAfter`.

import type { Socket } from 'node:net';
import { MillraceError, messageOf } from '../errors.ts';
import type { Sink, SinkContext, SinkWriter } from '../graph/sink.ts';
import { type Io, systemIo } from '../runtime/io.ts';
import { type Format, lineCodecOf, ndjson } from './formats.ts';
import { frame } from './framing.ts';
import { checkedAddress, connected, type TcpAddress } from './tcp-connection.ts';

/** Where `tcp.sink()` writes. */
export interface TcpSinkOptions<T> extends TcpAddress {
  /** ndjson() by default. Text is framed by line feed, everything else by its length. */
  format?: Format<T>;
}

const WAITING_BYTES = 1 << 20;

export function tcpSink<T>(options: TcpSinkOptions<T>, io: Io = systemIo()): Sink<T> {
  checkedAddress(options, 'tcp.sink()');
  const format = options.format ?? (ndjson() as Format<T>);
  return {
    async open(context) {
      await format.open?.();
      const writer = new TcpWriter(options, format, context, io);
      await writer.connect();
      return writer;
    },
  };
}

class TcpWriter<T> implements SinkWriter<T> {
  readonly #options: TcpSinkOptions<T>;
  readonly #format: Format<T>;
  readonly #context: SinkContext;
  readonly #io: Io;
  #socket: Socket | undefined;
  /** Not yet handed to the system, the oldest first. */
  #waiting: Buffer[] = [];
  #waitingBytes = 0;
  #wakes: (() => void)[] = [];
  #failure: unknown;
  #closed = false;
  readonly #ended = new AbortController();

  constructor(options: TcpSinkOptions<T>, format: Format<T>, context: SinkContext, io: Io) {
    this.#options = options;
    this.#format = format;
    this.#context = context;
    this.#io = io;
    const end = (): void => {
      this.#ended.abort();
      this.#socket?.destroy();
      this.#wake();
    };
    context.signal.addEventListener('abort', end, { once: true });
    if (context.signal.aborted) end();
  }

  /** Opens a connection and sends what waits. */
  async connect(): Promise<void> {
    const { uid, log } = this.#context;
    const socket = await connected(this.#options, { uid, log, signal: this.#ended.signal }, this.#io);
    if (socket === undefined) return;
    this.#socket = socket;
    let lost: Error | undefined;
    socket.on('error', (error) => {
      lost = error;
    });
    socket.on('close', () => {
      if (this.#socket !== socket) return;
      this.#socket = undefined;
      if (this.#closed || this.#ended.signal.aborted) return;
      log.warn(
        { uid, error: lost === undefined ? 'ended by the other side' : messageOf(lost) },
        `The connection to ${this.#options.host}:${this.#options.port} is gone; it is opened again.`,
      );
      this.connect().catch((error: unknown) => {
        this.#failure = error;
        this.#wake();
      });
    });
    // What the other side says is not for us, and must not fill up.
    socket.resume();
    this.#headed = undefined;
    for (const bytes of this.#waiting) this.#send(socket, bytes);
  }

  /** The columns that were sent over this connection. */
  #headed: string | undefined;

  write(values: readonly T[]): Promise<void> | undefined {
    this.#usable();
    const codec = lineCodecOf(this.#format);
    let bytes: Buffer;
    if (codec === undefined) bytes = Buffer.concat(values.map((value) => frame(this.#format.encode(value))));
    else {
      let lines = '';
      for (const value of values) {
        const header = codec.headerOf?.(value);
        if (header !== undefined && this.#columns !== header) {
          if (this.#columns !== undefined)
            throw new MillraceError('RECORD_UNENCODABLE', `A record has the columns ${header}, and the connection those of ${this.#columns}.`, {
              uid: this.#context.uid,
            });
          this.#columns = header;
        }
        lines += `${codec.encode(value)}\n`;
      }
      bytes = Buffer.from(lines);
    }
    if (bytes.length === 0) return undefined;
    this.#waiting.push(bytes);
    this.#waitingBytes += bytes.length;
    if (this.#socket !== undefined) this.#send(this.#socket, bytes);
    return this.#waitingBytes > WAITING_BYTES ? this.#until(() => this.#waitingBytes <= WAITING_BYTES) : undefined;
  }

  /** Of csv; the same for the life of the writer. */
  #columns: string | undefined;

  flush(): Promise<void> {
    return this.#until(() => this.#waitingBytes === 0);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const socket = this.#socket;
    if (socket !== undefined && !socket.destroyed && !this.#ended.signal.aborted) {
      await new Promise<void>((resolve) => {
        const done = (): void => {
          this.#ended.signal.removeEventListener('abort', done);
          resolve();
        };
        socket.on('close', done);
        this.#ended.signal.addEventListener('abort', done);
        // The other side may never end its half.
        socket.end(() => socket.destroy());
      });
    }
    socket?.destroy();
    this.#ended.abort();
    this.#wake();
  }

  #send(socket: Socket, bytes: Buffer): void {
    if (this.#columns !== undefined && this.#headed !== this.#columns) {
      this.#headed = this.#columns;
      socket.write(`${this.#columns}\n`);
    }
    socket.write(bytes, (error) => {
      if (error !== null && error !== undefined) return;
      // In order: it is the oldest.
      this.#waiting.shift();
      this.#waitingBytes -= bytes.length;
      this.#wake();
    });
  }

  #usable(): void {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#closed) throw new MillraceError('SINK_FAILED', 'The TCP writer is closed.', { uid: this.#context.uid });
  }

  async #until(holds: () => boolean): Promise<void> {
    for (;;) {
      this.#usable();
      if (holds()) return;
      if (this.#ended.signal.aborted) throw new MillraceError('SINK_FAILED', 'The attempt ended before everything was sent.', { uid: this.#context.uid });
      await new Promise<void>((resolve) => void this.#wakes.push(resolve));
    }
  }

  #wake(): void {
    const woken = this.#wakes;
    this.#wakes = [];
    for (const wake of woken) wake();
  }
}
