import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { copyFileSync } from 'node:fs';
import { connect as connectTcp, createServer, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { MessageChannel } from 'node:worker_threads';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { readCertificates, type TlsOptions } from '../../../src/cluster/transport/certificates.ts';
import { type Connection, Connections, type ConnectionsOptions, type Peer } from '../../../src/cluster/transport/connections.ts';
import { RemoteChannels } from '../../../src/cluster/transport/remote-channel.ts';
import { relay } from '../../../src/cluster/transport/shared-link.ts';
import { threadLink } from '../../../src/cluster/transport/thread-link.ts';
import type { Logger } from '../../../src/graph/context.ts';
import { takeBatch } from '../../../src/runtime/batch.ts';
import { notHad } from '../../services/not-had.ts';
import { type Authority, authority } from './sockets.ts';

interface Worker extends Peer {
  readonly connections: Connections;
  readonly said: { level: string; fields: Record<string, unknown>; text: string }[];
  readonly mails: unknown[];
  readonly connected: string[];
}

const open: { close(): unknown }[] = [];
afterEach(async () => {
  await Promise.all(open.splice(0).map((each) => each.close()));
});

async function worker(name: string, options: Partial<ConnectionsOptions> = {}): Promise<Worker> {
  const said: Worker['said'] = [];
  const say = (level: string) => (fields: unknown, text?: string) => void said.push({ level, fields: fields as Record<string, unknown>, text: text ?? '' });
  const log: Logger = { debug: say('debug'), info: say('info'), warn: say('warn'), error: say('error') };
  const mails: unknown[] = [];
  const connected: string[] = [];
  const connections = new Connections({
    hello: () => ({ cluster: 'c', worker: name, epoch: 1, plans: [] }),
    secret: 'open sesame',
    log,
    mail: (from, message) => void mails.push([from, message]),
    connected: (connection) => void connected.push(connection.worker),
    ...options,
  });
  open.push(connections);
  return { ...(await connections.listen()), worker: name, connections, said, mails, connected };
}

const asked = (from: Worker, to: Worker, giveUpAfter = 5000): Promise<Connection> => from.connections.connect(to, { giveUpAfter });

/** Sends a record there and takes it. */
async function carries({ channels: from }: Pick<Connection, 'channels'>, { channels: to }: Pick<Connection, 'channels'>, name: string): Promise<unknown> {
  const sender = from.out({ name, attempt: 1, from: 'a', to: 'b', wake() {}, failed() {} });
  const batch = takeBatch(false);
  batch.add({ over: name }, 1);
  sender.channel.send(batch);
  return new Promise((resolve) => {
    const receiver = to.in({
      name,
      attempt: 1,
      wake() {
        const element = receiver.channel.take();
        if (element !== undefined && !('kind' in element)) resolve(element.values[0]);
      },
    });
  });
}

describe('the workers of a cluster', () => {
  it('have one connection a pair, whoever asks first and however often', async () => {
    const [a, b, c] = [await worker('a'), await worker('b'), await worker('c')];
    const [ab, ba, ab2, ac, ca, bc, cb] = await Promise.all([asked(a, b), asked(b, a), asked(a, b), asked(a, c), asked(c, a), asked(b, c), asked(c, b)]);
    expect(ab2).toBe(ab);
    expect(await asked(b, a)).toBe(ba);
    expect([a.connected.sort(), b.connected.sort(), c.connected.sort()]).toEqual([
      ['b', 'c'],
      ['a', 'c'],
      ['a', 'b'],
    ]);
    expect(await Promise.all([carries(ab, ba, 'ab'), carries(ba, ab, 'ba'), carries(ac, ca, 'ac'), carries(cb, bc, 'cb')])).toEqual(
      ['ab', 'ba', 'ac', 'cb'].map((over) => ({ over })),
    );
    ab.channels.tell('hello');
    ba.channels.tell('and back');
    await carries(ab, ba, 'behind the mail');
    expect(b.mails).toEqual([['a', 'hello']]);
  });

  it('are connected once the other one listens, however late', async () => {
    const b = await worker('b');
    await b.connections.close();
    const a = await worker('a');
    const asking = asked(a, b);
    while (!a.said.some(({ text }) => text.includes('tried again'))) await new Promise((resolve) => setTimeout(resolve, 5));
    const late = await worker('b', { port: b.port });
    expect(await carries(await asking, await asked(late, a), 'late')).toEqual({ over: 'late' });
  });

  it('are told of a connection before its first mail, which may come in one piece with the end of the handshake', async () => {
    const order: string[] = [];
    const b = await worker('b', { connected: () => void order.push('connected'), mail: (_, message) => void order.push(String(message)) });
    // What a dialer says within 50 ms arrives at once.
    const proxy = createServer((from) => {
      const to = connectTcp(b.port, b.host);
      for (const socket of [from, to]) socket.on('error', () => {}).on('close', () => [from, to].forEach((each) => void each.destroy()));
      const held: Buffer[] = [];
      from.on('data', (bytes: Buffer) => {
        if (held.push(bytes) === 1) setTimeout(() => to.write(Buffer.concat(held.splice(0))), 50);
      });
      to.pipe(from);
    });
    proxy.listen(0, '127.0.0.1');
    await once(proxy, 'listening');
    open.push({ close: () => new Promise((resolve) => proxy.close(resolve)) });
    const a = await worker('a', { connected: ({ channels }) => channels.tell('first') });
    await asked(a, { ...b, port: (proxy.address() as { port: number }).port });
    while (!order.includes('first')) await new Promise((resolve) => setTimeout(resolve, 5));
    expect(order).toEqual(['connected', 'first']);
  });

  it('give up where nobody comes', async () => {
    const [a, b] = [await worker('a'), await worker('b')];
    await expect(asked(b, a, 50)).rejects.toMatchObject({ code: 'LINK_LOST', retryable: true });
    await b.connections.close();
    await expect(asked(a, b, 50)).rejects.toMatchObject({ code: 'LINK_LOST' });
    const stopped = new AbortController();
    const asking = a.connections.connect(b, { signal: stopped.signal });
    stopped.abort();
    await expect(asking).rejects.toMatchObject({ code: 'LINK_LOST' });
  });

  it('are told of a connection that is lost, and get a new one only by asking', async () => {
    const [a, b] = [await worker('a'), await worker('b')];
    // A proxy between them that can be cut.
    const cut: Socket[] = [];
    const proxy = createServer((from) => {
      const to = connectTcp(b.port, b.host);
      cut.push(from, to);
      for (const socket of [from, to]) socket.on('error', () => {});
      from.pipe(to).pipe(from);
    });
    proxy.listen(0, '127.0.0.1');
    await once(proxy, 'listening');
    open.push({ close: () => new Promise((resolve) => proxy.close(resolve)) });
    const through = { ...b, port: (proxy.address() as { port: number }).port };
    const [ab, ba] = await Promise.all([asked(a, through), asked(b, a)]);
    for (const socket of cut.splice(0)) socket.destroy();
    expect([await ab.lost, await ba.lost]).toMatchObject([{ code: 'LINK_LOST' }, { code: 'LINK_LOST' }]);
    expect([a.connected, b.connected]).toEqual([['b'], ['a']]);
    const [again, back] = await Promise.all([asked(a, through), asked(b, a)]);
    expect(again).not.toBe(ab);
    expect(await carries(back, again, 'again')).toEqual({ over: 'again' });
  });

  it('take the newest connection of a worker that has lost its own', async () => {
    const b = await worker('b');
    const first = await worker('a');
    const [, old] = await Promise.all([asked(first, b), asked(b, first)]);
    // The same worker, which knows nothing of that connection any more.
    const second = await worker('a');
    const fresh = await asked(second, b);
    expect(await old.lost).toMatchObject({ code: 'LINK_LOST' });
    expect(await carries(fresh, await asked(b, second), 'fresh')).toEqual({ over: 'fresh' });
  });

  it('have links for pairs of their hosts within the connection, relayed to where those run', async () => {
    const [a, b] = [await worker('a'), await worker('b')];
    const [ab, ba] = await Promise.all([asked(a, b), asked(b, a)]);
    const host = (connection: Connection, number: number): RemoteChannels => {
      const { port1, port2 } = new MessageChannel();
      relay(threadLink(port1, { peer: 'host' }), connection.part(number));
      return new RemoteChannels(threadLink(port2, { peer: 'main' }));
    };
    // One side is there before the other one knows of it.
    const [near1, near2] = [host(ab, 1), host(ab, 2)];
    near1.out({ name: 'early', attempt: 1, from: 'a', to: 'b', wake() {}, failed() {} });
    await carries(ab, ba, 'meanwhile');
    const [far1, far2] = [host(ba, 1), host(ba, 2)];
    const over = await Promise.all([
      carries({ channels: near1 }, { channels: far1 }, 'lane'),
      carries({ channels: far2 }, { channels: near2 }, 'lane'),
      carries({ channels: near2 }, { channels: far2 }, 'other lane'),
    ]);
    expect(over).toEqual([{ over: 'lane' }, { over: 'lane' }, { over: 'other lane' }]);
    // One that ends leaves the others alone.
    ab.part(1).close();
    expect([await near1.lost, await far1.lost]).toEqual([undefined, undefined]);
    expect(await carries({ channels: near2 }, { channels: far2 }, 'third lane')).toEqual({ over: 'third lane' });
    await a.connections.close();
    expect([await near2.lost, await far2.lost]).toEqual([undefined, undefined]);
  });

  it('lose the connection when one of them fails over mail, and get a new one by asking', async () => {
    const b = await worker('b', {
      mail: (_, message) => {
        if (message === 'bad') throw new Error('not understood');
      },
    });
    const a = await worker('a');
    const [ab, ba] = await Promise.all([asked(a, b), asked(b, a)]);
    ab.channels.tell('bad');
    expect([await ab.lost, await ba.lost]).toMatchObject([{ code: 'LINK_LOST' }, { code: 'LINK_LOST', message: expect.stringContaining('not understood') }]);
    const [again, back] = await Promise.all([asked(a, b), asked(b, a)]);
    expect(await carries(again, back, 'again')).toEqual({ over: 'again' });
  });

  it('that close say so: nothing was lost', async () => {
    const [a, b] = [await worker('a'), await worker('b')];
    const [ab, ba] = await Promise.all([asked(a, b), asked(b, a)]);
    await a.connections.close();
    expect([await ab.lost, await ba.lost]).toEqual([undefined, undefined]);
  });

  it('refuse another secret at once, log it once, and nobody else is disturbed', async () => {
    const [a, b] = [await worker('a'), await worker('b')];
    const [ab, ba] = await Promise.all([asked(a, b), asked(b, a)]);
    const stranger = await worker('0', { secret: 'guessed' });
    for (let i = 0; i < 5; i++) await expect(asked(stranger, b)).rejects.toMatchObject({ code: 'LINK_REFUSED', retryable: false });
    expect(b.said.filter(({ fields }) => fields['code'] === 'LINK_REFUSED')).toHaveLength(1);
    expect(b.connected).toEqual(['a']);
    expect(await carries(ab, ba, 'still')).toEqual({ over: 'still' });
  });

  it('are disturbed neither by strangers that say nothing, nor by ones that say anything', async () => {
    const [a, b] = [await worker('a'), await worker('b')];
    const strangers = Array.from({ length: 100 }, () => connectTcp(b.port, b.host).on('error', () => {}));
    await Promise.all(strangers.map((socket) => once(socket, 'connect')));
    for (const socket of strangers.slice(0, 30)) socket.write(randomBytes(100));
    const [ab, ba] = await Promise.all([asked(a, b), asked(b, a)]);
    expect(await carries(ab, ba, 'through')).toEqual({ over: 'through' });
    expect(b.said.length).toBeLessThan(5);
    for (const socket of strangers) socket.destroy();
  });
});

describe('with certificates', () => {
  let trusted: Authority | undefined;
  let other: Authority | undefined;
  beforeAll(async () => {
    [trusted, other] = [await authority(), await authority()];
    if (trusted === undefined) notHad('openssl', 'it makes the certificates that workers show in these tests');
  });
  afterAll(() => {
    trusted?.remove();
    other?.remove();
  });

  const secured = async (name: string, tls: TlsOptions, options: Partial<ConnectionsOptions> = {}): Promise<Worker> => worker(name, { tls, ...options });

  it('of one authority they speak', async ({ skip }) => {
    if (trusted === undefined) return skip();
    const [a, b] = [await secured('a', await trusted.issue('a')), await secured('b', await trusted.issue('b'))];
    const [ab, ba] = await Promise.all([asked(a, b), asked(b, a)]);
    expect(await carries(ab, ba, 'tls')).toEqual({ over: 'tls' });
    expect(await carries(ba, ab, 'tls back')).toEqual({ over: 'tls back' });
  });

  it('of another authority, without one, or without TLS they do not; those who fit are not disturbed', async ({ skip }) => {
    if (trusted === undefined || other === undefined) return skip();
    const [right, wrong] = [await trusted.issue('b'), await other.issue('wrong')];
    const b = await secured('b', right);
    // What it shows nobody here has signed; it takes the worker for one.
    const forged = await secured('0', { ...wrong, ca: right.ca });
    await expect(asked(forged, b, 500)).rejects.toMatchObject({ code: expect.stringMatching(/^LINK_(REFUSED|LOST)$/) });
    const suspicious = await secured('1', wrong);
    await expect(asked(suspicious, b, 2000)).rejects.toMatchObject({ code: 'LINK_REFUSED' });
    const bare = connectTls({ host: b.host, port: b.port, rejectUnauthorized: false }).on('error', () => {});
    await new Promise((resolve) => bare.once('close', resolve).resume());
    const plain = await worker('2', { handshake: 300 });
    await expect(asked(plain, b, 1000)).rejects.toMatchObject({ code: expect.stringMatching(/^LINK_/) });
    expect(b.connected).toEqual([]);
    expect(b.said.filter(({ fields }) => fields['code'] === 'LINK_REFUSED').length).toBeGreaterThan(0);
    const a = await secured('a', await trusted.issue('a'));
    const [ab, ba] = await Promise.all([asked(a, b), asked(b, a)]);
    expect(await carries(ab, ba, 'fits')).toEqual({ over: 'fits' });
  });

  it('they want the secret as well', async ({ skip }) => {
    if (trusted === undefined) return skip();
    const [a, b] = [await secured('a', await trusted.issue('a'), { secret: 'x' }), await secured('b', await trusted.issue('b'))];
    await expect(asked(a, b)).rejects.toMatchObject({ code: 'LINK_REFUSED', message: expect.stringContaining('secrets') });
  });

  it('that are replaced are shown without a restart, and what cannot be used changes nothing', async ({ skip }) => {
    if (trusted === undefined || other === undefined) return skip();
    const files = await trusted.issue('b');
    const b = await secured('b', { ...files, reload: 20 });
    const next = await other.issue('next');
    // The certificate first: its key is still the old one's.
    copyFileSync(next.cert, files.cert);
    const heard = async (level: string): Promise<void> => {
      while (!b.said.some((entry) => entry.level === level)) await new Promise((resolve) => setTimeout(resolve, 10));
    };
    await heard('error');
    const still = await secured('a', await trusted.issue('a'));
    const [before] = await Promise.all([asked(still, b), asked(b, still)]);
    copyFileSync(next.key, files.key);
    copyFileSync(next.ca, files.ca);
    await heard('info');
    const fresh = await secured('a2', await other.issue('a2'));
    const [after, ofFresh] = await Promise.all([asked(fresh, b), asked(b, fresh)]);
    expect(await carries(after, ofFresh, 'new')).toEqual({ over: 'new' });
    // Connections that stand are as they were.
    expect(await carries(before, await asked(b, still), 'old')).toEqual({ over: 'old' });
  });

  it('that are none are refused when they are read', async () => {
    await expect(readCertificates({ cert: '/nowhere/cert', key: '/nowhere/key', ca: '/nowhere/ca' })).rejects.toMatchObject({ code: 'OPTION_INVALID' });
  });
});

describe('where to listen', () => {
  it('is this machine only, without a secret and without certificates', async () => {
    for (const host of ['0.0.0.0', '::', 'example.org']) await expect(worker('a', { host, secret: '' })).rejects.toMatchObject({ code: 'OPTION_INVALID' });
    expect((await worker('b', { secret: '' })).host).toBe('127.0.0.1');
    expect((await worker('c', { host: '0.0.0.0' })).port).toBeGreaterThan(0);
  });

  it('is refused where it is taken', async () => {
    const a = await worker('a');
    await expect(worker('b', { port: a.port })).rejects.toMatchObject({ code: 'PORT_IN_USE' });
  });
});
