import type { AddressInfo } from 'node:net';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { type Format, job } from 'millrace';
import { describe, expect, it, onTestFinished } from 'vitest';
import { csv, msgpack, ndjson, text } from '../../src/connectors/formats.ts';
import { frame } from '../../src/connectors/framing.ts';
import { tcp } from '../../src/connectors/index.ts';
import { listening } from '../../src/connectors/listening.ts';
import { tcpSink } from '../../src/connectors/tcp-sink.ts';
import { type TcpSourceOptions, tcpSource } from '../../src/connectors/tcp-source.ts';
import { SILENT } from '../../src/graph/context.ts';
import { type Io, systemIo } from '../../src/runtime/io.ts';
import { ends, Seen } from '../protocols/lab.ts';
import { type Letter, readContext, sinkContext, valuesOf } from './reading.ts';

const HOST = '127.0.0.1';
/** Waits are over at once; how long they were is added up. */
function hasty(): { io: Io; passed(): number } {
  let passed = 0;
  const system = systemIo();
  const setTimeout = (fn: () => void, ms: number): unknown =>
    setImmediate(() => {
      passed += ms;
      fn();
    });
  return {
    io: {
      ...system,
      clock: { now: () => passed, clearTimeout: system.clock.clearTimeout, setTimeout },
    },
    passed: () => passed,
  };
}

/** Answers the n-th connection with the n-th function, the later ones with the last. */
async function serving(...connections: ((socket: Socket) => void)[]): Promise<{ port: number; server: Server; sockets: Socket[] }> {
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    socket.on('error', () => {});
    sockets.push(socket);
    connections[Math.min(sockets.length, connections.length) - 1]!(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, HOST, resolve));
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return { port: (server.address() as AddressInfo).port, server, sockets };
}

/** The first n records, then the attempt ends. */
async function firstOf<T>(options: TcpSourceOptions<T>, n: number, letters: Letter[] = [], io?: Io): Promise<T[]> {
  const attempt = new AbortController();
  const values: T[] = [];
  for await (const batch of tcpSource(options, io).read('tcp', undefined, readContext(letters, { signal: attempt.signal }))) {
    values.push(...batch.values);
    if (values.length + letters.length >= n) attempt.abort();
  }
  return values;
}

describe('a source of a TCP connection', () => {
  it.each<[string, Format<unknown>, Buffer | string, unknown[]]>([
    ['lines', ndjson(), '{"n":1}\r\n\n{"n":"ö"}\n{"n":3}', [{ n: 1 }, { n: 'ö' }, { n: 3 }]],
    ['text', text() as Format<unknown>, 'a\n\nb\n', ['a', '', 'b']],
    [
      'csv',
      csv(),
      'id,name\n1,mill\n2,water\n',
      [
        { id: '1', name: 'mill' },
        { id: '2', name: 'water' },
      ],
    ],
    ['frames', msgpack(), Buffer.concat([1, { a: 2 }].map((value) => frame(msgpack().encode(value)))), [1, { a: 2 }]],
  ])('reads %s, however they are cut into blocks', async (_, format, content, expected) => {
    const bytes = Buffer.from(content);
    const { port } = await serving(async (socket) => {
      socket.setNoDelay(true);
      for (const byte of bytes) await new Promise<void>((resolve) => socket.write(Buffer.of(byte), () => resolve()));
      socket.end();
    });
    expect(await valuesOf(tcpSource({ host: HOST, port, format, untilClosed: true }), 'tcp')).toEqual(expected);
  });

  it('connects again where the other side ends, and reads the line of columns of each connection', async () => {
    const { port } = await serving(
      (socket) => socket.end('a,b\n1,2\n'),
      (socket) => void socket.write('b,a\n4,3\n'),
    );
    expect(await firstOf({ host: HOST, port, format: csv() }, 2, [], hasty().io)).toEqual([
      { a: '1', b: '2' },
      { b: '4', a: '3' },
    ]);
  });

  it('takes half of a record for none: what a broken connection left is a dead letter', async () => {
    const { port, sockets } = await serving(
      (socket) => void socket.write('1\n12'),
      (socket) => void socket.write('3\n'),
    );
    const letters: Letter[] = [];
    const attempt = new AbortController();
    const values: number[] = [];
    for await (const batch of tcpSource<number>({ host: HOST, port }, hasty().io).read('tcp', undefined, readContext(letters, { signal: attempt.signal }))) {
      values.push(...batch.values);
      // Both came in one block.
      if (values.length === 1) sockets[0]!.resetAndDestroy();
      else if (values.length === 2) attempt.abort();
    }
    expect(values).toEqual([1, 3]);
    expect(letters).toEqual([{ record: Uint8Array.from(Buffer.from('12')), error: expect.objectContaining({ code: 'RECORD_UNDECODABLE' }) }]);
  });

  it('keeps what does not decode as dead letters, a length beyond all records included', async () => {
    const { port } = await serving(
      (socket) => socket.end('1\nno\n2\n'),
      (socket) => void socket.write('3\n'),
    );
    const letters: Letter[] = [];
    expect(await firstOf<number>({ host: HOST, port }, 4, letters, hasty().io)).toEqual([1, 2, 3]);
    expect(letters.map(({ record }) => Buffer.from(record as Uint8Array).toString())).toEqual(['no']);
    const framed = await serving(
      (socket) => void socket.write('GET / HTTP/1.1\r\n'),
      (socket) => void socket.write(frame(msgpack().encode(5))),
    );
    expect(await firstOf({ host: HOST, port: framed.port, format: msgpack() }, 2 + letters.length, letters, hasty().io)).toEqual([5]);
    expect(letters[1]!.error).toMatchObject({ code: 'RECORD_TOO_LARGE' });
  });

  it('gives up after a while where nobody answers: CONNECTION_FAILED, worth a restart', async () => {
    const { port, server } = await serving(() => {});
    await new Promise((resolve) => server.close(resolve));
    const { io, passed } = hasty();
    await expect(valuesOf(tcpSource({ host: HOST, port, giveUpAfter: 5000 }, io), 'tcp')).rejects.toMatchObject({ code: 'CONNECTION_FAILED', retryable: true });
    expect(passed()).toBeGreaterThanOrEqual(5000);
  });

  it('reads no faster than its records are taken', async () => {
    let sent = 0;
    const line = `"${'x'.repeat(65_534)}"\n`;
    const { port } = await serving((socket) => {
      const more = (): void => {
        while (socket.write(line)) sent += 1;
        sent += 1;
      };
      socket.on('drain', more);
      more();
    });
    const attempt = new AbortController();
    const reading = tcpSource<string>({ host: HOST, port })
      .read('tcp', undefined, readContext([], { signal: attempt.signal }))
      [Symbol.asyncIterator]();
    await reading.next();
    // Until the sender stands still.
    for (let before = -1; before !== sent; await new Promise((resolve) => setTimeout(resolve, 100))) before = sent;
    const stood = sent;
    expect(stood).toBeLessThan(500);
    for (let i = 0; i < 600; i += 1) await reading.next();
    expect(sent).toBeGreaterThan(stood);
    attempt.abort();
    await reading.return?.();
  });

  it.each([
    { host: '', port: 1 },
    { host: HOST, port: 70_000 },
    { host: HOST, port: 1.5 },
    { host: HOST, port: 1, giveUpAfter: -1 },
    { host: HOST, port: 0, listen: true, untilClosed: true },
  ])('refuses %j', (options) => {
    expect(() => tcp.source(options)).toThrow(expect.objectContaining({ code: 'OPTION_INVALID' }));
  });
});

describe('a source that listens', () => {
  it('takes records of several connections, and outlives what one of them does', async () => {
    const letters: Letter[] = [];
    const opened = (port: number): Socket => {
      const socket = connect(port, HOST);
      onTestFinished(() => void socket.destroy());
      return socket;
    };
    const onListening = ({ port }: { port: number }): void => {
      opened(port).end('1\n2\n');
      opened(port).end('no\n');
      opened(port).write('3\n');
    };
    expect((await firstOf<number>({ host: HOST, port: 0, listen: true, onListening }, 4, letters)).sort()).toEqual([1, 2, 3]);
    expect(letters).toHaveLength(1);
  });

  it('frees its port when the attempt ends, for the next one; one that another has is PORT_IN_USE', async () => {
    const attempts = [new AbortController(), new AbortController()];
    let port = 0;
    for (const [i, { signal }] of attempts.entries()) {
      const listened = new Promise<number>((resolve) => {
        const source = tcpSource<number>({ host: HOST, port, listen: true, onListening: (address) => resolve(address.port) });
        void source.read('tcp', undefined, readContext([], { signal }))[Symbol.asyncIterator]().next();
      });
      port = await listened;
      if (i === 0) attempts[0]!.abort();
    }
    await expect(valuesOf(tcpSource({ host: HOST, port, listen: true }, hasty().io), 'tcp')).rejects.toMatchObject({ code: 'PORT_IN_USE', retryable: true });
    attempts[1]!.abort();
  });

  it('goes on where a connection cannot be accepted, and says so', async () => {
    const server = createServer();
    const attempt = new AbortController();
    const said: unknown[] = [];
    const log = { ...SILENT, warn: (fields: unknown) => void said.push(fields) };
    const address = await listening(server, { host: HOST, port: 0 }, { uid: 'in', signal: attempt.signal, log }, systemIo());
    expect(address?.port).toBeGreaterThan(0);
    server.emit('error', new Error('accept EMFILE'));
    expect(said).toEqual([{ uid: 'in', error: 'accept EMFILE' }]);
    attempt.abort();
    expect(server.listening).toBe(false);
  });

  it('goes on in a job that restarts', async () => {
    const seen = new Seen<number>();
    let fail = true;
    const ports: number[] = [];
    const listens: (() => void)[] = [];
    const source = tcp.source<number>({
      host: HOST,
      port: 0,
      listen: true,
      onListening: ({ port }) => {
        ports.push(port);
        connect(port, HOST)
          .on('error', () => {})
          .end(`${ports.length}\n`);
        for (const wake of listens) wake();
      },
    });
    const running = ends(
      await job('listening', (env) => {
        env
          .source('in', source)
          .map((n) => {
            if (fail) {
              fail = false;
              throw new Error('once');
            }
            return n;
          })
          .sink('out', seen);
      }).start({ restarts: { max: 3, within: 60_000, backoff: { initial: 1, max: 1 } } }),
    );
    await seen.until((values) => values.length === 1);
    // Not replayed: the first record went with the failure.
    expect(seen.values).toEqual([2]);
    await running.stop();
  });
});

describe('a sink of a TCP connection', () => {
  const received = (): { text: () => string; take: (socket: Socket) => void; until: (holds: (text: string) => boolean) => Promise<void> } => {
    let all = '';
    const waits: (() => void)[] = [];
    return {
      text: () => all,
      take: (socket) =>
        void socket.setEncoding('utf8').on('data', (part: string) => {
          all += part;
          for (const wake of waits.splice(0)) wake();
        }),
      async until(holds) {
        while (!holds(all)) await new Promise<void>((resolve) => void waits.push(resolve));
      },
    };
  };

  it('writes records in their order, framed as the format has it, and a last one before it closes', async () => {
    const into = received();
    const ended = new Promise<void>((resolve) => {
      void serving((socket) => {
        into.take(socket);
        socket.on('end', resolve);
      }).then(async ({ port }) => {
        const writer = await tcpSink<object>({ host: HOST, port, format: csv() }).open(sinkContext());
        await writer.write([{ a: 1 }, { a: 2 }], []);
        await writer.flush();
        await writer.write([{ a: 3 }], []);
        expect(() => writer.write([{ b: 1 }], [])).toThrow(expect.objectContaining({ code: 'RECORD_UNENCODABLE' }));
        await writer.close();
        await writer.close();
      });
    });
    await ended;
    expect(into.text()).toBe('a\n1\n2\n3\n');
  });

  it('connects again where the connection is lost, and sends what had not left', async () => {
    const into = received();
    const { port, sockets } = await serving((socket) => into.take(socket));
    const writer = await tcpSink<number>({ host: HOST, port }, hasty().io).open(sinkContext());
    await writer.write([1], []);
    await writer.flush();
    await into.until((text) => text === '1\n');
    const lost = new Promise((resolve) => sockets[0]!.on('close', resolve));
    sockets[0]!.resetAndDestroy();
    await lost;
    // What is written into a broken connection may be lost; the sink finds out, and goes on.
    for (let n = 2; sockets.length < 2; n += 1) {
      await writer.write([n], []);
      await new Promise((resolve) => setImmediate(resolve));
    }
    await writer.write([1000], []);
    await writer.flush();
    await into.until((text) => text.endsWith('1000\n'));
    await writer.close();
  });

  it('fails with CONNECTION_FAILED where nobody answers, also behind a connection that was lost', async () => {
    const { port, server, sockets } = await serving(() => {});
    const writer = await tcpSink<number>({ host: HOST, port, giveUpAfter: 1000 }, hasty().io).open(sinkContext());
    while (sockets.length === 0) await new Promise((resolve) => setImmediate(resolve));
    server.close();
    sockets[0]!.resetAndDestroy();
    const failed = async (): Promise<never> => {
      for (;;) {
        await writer.write([1], []);
        await writer.flush();
        await new Promise((resolve) => setImmediate(resolve));
      }
    };
    await expect(failed()).rejects.toMatchObject({ code: 'CONNECTION_FAILED' });
    await expect(tcpSink({ host: HOST, port, giveUpAfter: 1000 }, hasty().io).open(sinkContext())).rejects.toMatchObject({ code: 'CONNECTION_FAILED' });
    await writer.close();
  });

  it('holds the job back while the other side does not read, until the attempt ends', async () => {
    const { port } = await serving((socket) => void socket.pause());
    const attempt = new AbortController();
    const writer = await tcpSink<string>({ host: HOST, port }).open(sinkContext({ signal: attempt.signal }));
    const large = 'x'.repeat(2 << 20);
    let held = writer.write([large], []);
    for (let i = 0; held === undefined && i < 20; i += 1) held = writer.write([large], []);
    const failure = expect(writer.flush()).rejects.toMatchObject({ code: 'SINK_FAILED' });
    void Promise.resolve(held).catch(() => {});
    attempt.abort();
    await failure;
    await writer.close();
  });
});
