// The TCP source: records out of a socket, which it opens itself or which others open to it.
//
// What comes over a socket does not come again: nothing here can be replayed. Records that were handed over since the last checkpoint, and bytes on their way, are lost
// with a crash (at most once). The position counts records, for those who look at it.
//
// Invariants:
//  T2  A connection is read only as fast as its records are taken; the sender is held back by TCP.
//  T3  What is left of a record when a connection ends is a record only where lines ended in order (FIN); else it is a dead letter: half of a record is never taken
//      for a whole one.
//  T4  When the attempt ends, every socket is destroyed and nothing listens.

import { createServer, type Socket } from 'node:net';
import { asError, MillraceError } from '../errors.ts';
import type { ReadContext, Source, SourceBatch } from '../graph/source.ts';
import { type Io, systemIo } from '../runtime/io.ts';
import { DEFAULT_WAITS, waitBefore } from '../time/backoff.ts';
import { Arrivals } from './arrivals.ts';
import { type Format, lineCodecOf, ndjson } from './formats.ts';
import { decodeFrames, decodeLines, Framer, preparedFrames } from './framing.ts';
import { type ListeningAddress, listening } from './listening.ts';
import { pause } from './pause.ts';
import { checkedAddress, connected, type TcpAddress } from './tcp-connection.ts';

/** What `tcp.source()` reads. */
export interface TcpSourceOptions<T> extends TcpAddress {
  /** ndjson() by default. Text is framed by line feed, everything else by its length. */
  format?: Format<T>;
  /** Waits for connections on host and port, any number of them, instead of connecting; false by default. Port 0 takes a free one. */
  listen?: boolean;
  /** Ends, and with it the job, where the other side ends the connection in order; by default it is connected again. Not with `listen`. */
  untilClosed?: boolean;
  /** Told the address when it listens. */
  onListening?(address: ListeningAddress): void;
}

/** What a connection has brought: letters stand in front of values. */
interface Brought<T> {
  readonly values: T[];
  readonly letters: readonly { readonly record: unknown; readonly error: unknown }[];
}

/** Blocks that wait to be taken, of all connections. */
const WAITING_BLOCKS = 16;

export function tcpSource<T>(options: TcpSourceOptions<T>, io: Io = systemIo()): Source<T, string, number> {
  checkedAddress(options, 'tcp.source()');
  const { host, port, listen = false, untilClosed = false } = options;
  if (listen && untilClosed) throw new MillraceError('OPTION_INVALID', 'A tcp.source() that listens never ends.', { todo: 'Leave out untilClosed or listen.' });
  const format = options.format ?? (ndjson() as Format<T>);
  return {
    bounded: untilClosed,
    splits: async () => ['tcp'],
    splitId: () => `${host}:${port}`,
    async *read(_, from, context) {
      let position = from ?? 0;
      const blocks = listen ? accepted(options, format, context, io) : asked(options, format, context, io);
      for await (const { values, letters } of blocks) {
        if (context.signal.aborted) return;
        for (const { record, error } of letters) context.deadLetter(record, error);
        position += values.length;
        const now = io.clock.now();
        yield { values, timestamps: values.map(() => now), position } satisfies SourceBatch<T, number>;
      }
    },
  };
}

async function* asked<T>(options: TcpSourceOptions<T>, format: Format<T>, context: ReadContext, io: Io): AsyncGenerator<Brought<T>> {
  const { host, port, untilClosed = false } = options;
  /** Connections in a row that brought nothing: one that accepts and hangs up is not to be asked without end. */
  let barren = 0;
  for (;;) {
    const socket = await connected(options, context, io);
    if (socket === undefined) return;
    let inOrder = false;
    const ended = (): void => {
      inOrder = true;
    };
    barren += 1;
    for await (const brought of recordsOf(socket, format, context.signal, ended)) {
      barren = 0;
      yield brought;
    }
    if (context.signal.aborted || (untilClosed && inOrder)) return;
    context.log.warn({ uid: context.uid }, `The connection to ${host}:${port} has ended; it is opened again.`);
    await pause(waitBefore(barren + 1, DEFAULT_WAITS, io.random()), context.signal, io.clock);
  }
}

async function* accepted<T>(options: TcpSourceOptions<T>, format: Format<T>, context: ReadContext, io: Io): AsyncGenerator<Brought<T>> {
  const { uid, signal, log } = context;
  const arrivals = new Arrivals<Brought<T>>(WAITING_BLOCKS);
  const sockets = new Set<Socket>();
  let failure: { readonly error: unknown } | undefined;
  const serve = async (socket: Socket): Promise<void> => {
    sockets.add(socket);
    try {
      for await (const brought of recordsOf(socket, format, signal, () => {})) {
        await arrivals.room();
        arrivals.push(brought);
      }
    } catch (error) {
      // What a sender does ends its connection only; what is left is a format that cannot be used.
      failure ??= { error };
      arrivals.end();
    } finally {
      sockets.delete(socket);
    }
  };
  const server = createServer((socket) => void serve(socket));
  const stop = (): void => arrivals.end();
  signal.addEventListener('abort', stop);
  try {
    const address = await listening(server, options, context, io);
    if (address === undefined) return;
    log.info({ uid, ...address }, `The source '${uid}' listens on port ${address.port} of ${address.host}.`);
    options.onListening?.(address);
    for (;;) {
      const taken = await arrivals.take();
      if (failure !== undefined) throw failure.error;
      if (taken.length === 0 || signal.aborted) return;
      yield* taken;
    }
  } finally {
    signal.removeEventListener('abort', stop);
    arrivals.end();
    server.close();
    for (const socket of sockets) socket.destroy();
  }
}

/** The records of one connection until it ends, in whatever way. */
async function* recordsOf<T>(socket: Socket, format: Format<T>, signal: AbortSignal, endedInOrder: () => void): AsyncGenerator<Brought<T>> {
  const codec = lineCodecOf(format);
  const framer = new Framer(codec !== undefined, 0);
  let reader = codec === undefined || codec.header ? undefined : codec.reader(undefined);
  const abort = (): void => void socket.destroy();
  signal.addEventListener('abort', abort);
  if (signal.aborted) abort();

  const decode = async (given: Buffer): Promise<Brought<T>> => {
    const letters: { record: unknown; error: unknown }[] = [];
    const onBad = (record: Uint8Array, error: Error): void => void letters.push({ record, error });
    let bytes = given;
    if (codec === undefined) {
      await preparedFrames(bytes, format);
      return { values: decodeFrames(bytes, format, onBad), letters };
    }
    if (reader === undefined) {
      let end = bytes.indexOf(10);
      if (end < 0) end = bytes.length;
      reader = codec.reader(bytes.toString('utf8', 0, end > 0 && bytes[end - 1] === 13 ? end - 1 : end));
      bytes = bytes.subarray(end + 1);
    }
    return { values: decodeLines(bytes, codec, reader, onBad), letters };
  };
  const spoiled = (record: Uint8Array, error: unknown): Brought<T> => ({ values: [], letters: [{ record: new Uint8Array(record), error: asError(error) }] });

  try {
    const blocks = (socket as AsyncIterable<Buffer>)[Symbol.asyncIterator]();
    for (;;) {
      let next: IteratorResult<Buffer>;
      try {
        next = await blocks.next();
      } catch (error) {
        if (signal.aborted) return;
        const rest = framer.rest();
        if (rest !== undefined) yield spoiled(rest.bytes, cutOff(error));
        return;
      }
      if (next.done === true) break;
      let region: ReturnType<Framer['push']>;
      try {
        region = framer.push(next.value);
      } catch (error) {
        // Longer than any record: this is no sender of ours.
        yield spoiled(next.value.subarray(0, 1024), error);
        return;
      }
      if (region !== undefined) yield await decode(region.bytes);
    }
    if (signal.aborted) return;
    const rest = framer.rest();
    if (rest !== undefined) yield await decode(rest.bytes);
    endedInOrder();
  } finally {
    signal.removeEventListener('abort', abort);
    socket.destroy();
  }
}

function cutOff(cause: unknown): MillraceError {
  return new MillraceError('RECORD_UNDECODABLE', 'The connection broke off in the middle of a record.', { cause });
}
