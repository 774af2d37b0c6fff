import type { Socket } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { BUFFERED_MAX, type Link } from '../../../src/cluster/transport/link.ts';
import { type SocketLinkOptions, socketLink } from '../../../src/cluster/transport/socket-link.ts';
import { Random, SEED } from '../../random.ts';
import { socketPair } from './sockets.ts';

const opened: { destroy(): unknown }[] = [];
afterEach(() => {
  for (const each of opened.splice(0)) each.destroy();
});

async function sockets(): Promise<[Socket, Socket]> {
  const pair = await socketPair();
  opened.push(...pair);
  return pair;
}

async function links(options: Partial<SocketLinkOptions> = {}): Promise<[Link, Link, Socket, Socket]> {
  const [a, b] = await sockets();
  return [socketLink(a, { peer: 'two', ...options }), socketLink(b, { peer: 'one', ...options }), a, b];
}

function framed(...frames: Buffer[]): Buffer {
  return Buffer.concat(
    frames.flatMap((frame) => {
      const length = Buffer.alloc(4);
      length.writeUInt32LE(frame.length, 0);
      return [length, frame];
    }),
  );
}

describe('a link between processes', () => {
  it('carries frames of any size, in order, both ways', async () => {
    const random = new Random(SEED);
    const [a, b] = await links();
    const frames = Array.from({ length: 300 }, (_, i) => Buffer.alloc(random.once(20) ? random.between(9, 400_000) : random.between(9, 300), i & 0xff));
    const got = (link: Link) =>
      new Promise<Buffer[]>((resolve) => {
        const all: Buffer[] = [];
        link.receive((frame) => {
          all.push(Buffer.from(frame));
          if (all.length === frames.length) resolve(all);
        });
      });
    const both = Promise.all([got(a), got(b)]);
    for (const frame of frames) {
      a.send(frame);
      b.send(frame);
      if (random.once(10)) await new Promise(setImmediate);
    }
    for (const all of await both) expect(Buffer.concat(all).equals(Buffer.concat(frames)) && all.length).toBe(frames.length);
  });

  it('puts frames together that come in pieces of any size', async () => {
    const random = new Random(SEED);
    const [socket, other] = await sockets();
    const frames = Array.from({ length: 60 }, (_, i) => Buffer.alloc(random.between(9, 40), i));
    const bytes = Buffer.concat(frames.flatMap((frame) => [Buffer.alloc(4), framed(frame)]));
    const link = socketLink(other, { peer: 'one', read: bytes.subarray(0, 7) });
    const all: Buffer[] = [];
    const whole = new Promise<void>((resolve) => {
      link.receive((frame) => {
        all.push(Buffer.from(frame));
        if (all.length === frames.length) resolve();
      });
    });
    socket.setNoDelay(true);
    for (let at = 7; at < bytes.length; ) {
      const size = random.between(1, 30);
      socket.write(bytes.subarray(at, at + size));
      at += size;
      await new Promise(setImmediate);
    }
    await whole;
    expect(Buffer.concat(all).equals(Buffer.concat(frames))).toBe(true);
  });

  it('says when whoever can wait should, and when to go on, where the other side does not read', async () => {
    const [a, b] = await links();
    const chunk = Buffer.alloc(1 << 18, 1);
    let sent = 0;
    for (; a.ready; sent++) {
      a.send(chunk);
      await new Promise(setImmediate);
    }
    expect(a.buffered).toBeGreaterThanOrEqual(BUFFERED_MAX);
    const drained = new Promise<void>((resolve) => {
      a.drained = resolve;
    });
    let got = 0;
    b.receive(() => {
      got += 1;
    });
    await drained;
    expect(a.ready).toBe(true);
    a.close();
    await b.closed;
    expect(got).toBe(sent);
  });

  it('that one side closes has given everything to the other before, and neither takes it for lost', async () => {
    const [a, b] = await links();
    const got: string[] = [];
    a.receive(() => {});
    b.receive((frame) => void got.push(frame.toString()));
    a.send(Buffer.from('the last words'));
    a.close();
    expect([await a.closed, await b.closed, got]).toEqual([undefined, undefined, ['the last words']]);
    a.send(Buffer.from('to nobody'));
    a.close();
  });

  it('is lost where the connection ends, between frames or within one', async () => {
    for (const last of [Buffer.alloc(0), framed(Buffer.alloc(100)).subarray(0, 50), Buffer.from([7])]) {
      const [socket, other] = await sockets();
      const link = socketLink(other, { peer: 'one' });
      const got: number[] = [];
      link.receive((frame) => void got.push(frame.length));
      socket.end(Buffer.concat([framed(Buffer.alloc(20)), last]));
      const error = await link.closed;
      expect(error).toMatchObject({ code: 'LINK_LOST', retryable: true });
      if (last.length > 0) expect(error!.message).toContain('within a frame');
      expect(got).toEqual([20]);
    }
  });

  it('refuses a frame of four gigabytes before anything is made for it, and closes', async () => {
    const [socket, other] = await sockets();
    const link = socketLink(other, { peer: 'one' });
    link.receive(() => expect.fail('there is no frame'));
    const before = process.memoryUsage().arrayBuffers;
    socket.write(Buffer.from([0xff, 0xff, 0xff, 0xff, 1, 2, 3]));
    expect(await link.closed).toMatchObject({ code: 'LINK_CORRUPT' });
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(64 << 20);
    await new Promise((resolve) => socket.once('close', resolve));
  });

  it('takes a peer for dead that says nothing, and not one that only has nothing to send', async () => {
    const beats = { heartbeat: 10, deadAfter: 60 };
    const [a, b] = await links(beats);
    a.receive(() => {});
    b.receive(() => {});
    const [silent, other] = await sockets();
    const dead = socketLink(other, { peer: 'silent', ...beats });
    dead.receive(() => {});
    expect(await dead.closed).toMatchObject({ code: 'LINK_LOST' });
    await new Promise((resolve) => silent.on('close', resolve).resume());
    const first = await Promise.race([a.closed, b.closed, new Promise((resolve) => setTimeout(resolve, 200, 'both stand'))]);
    expect(first).toBe('both stand');
    a.close();
    await b.closed;
  });

  it('is not taken for dead by a host that was held up itself', async () => {
    const [a, b] = await links({ heartbeat: 10, deadAfter: 30 });
    a.receive(() => {});
    b.receive(() => {});
    for (let held = 0; held < 3; held++) {
      const until = performance.now() + 100;
      while (performance.now() < until);
      await new Promise((resolve) => setTimeout(resolve, 15));
    }
    expect(await Promise.race([a.closed, b.closed, Promise.resolve('both stand')])).toBe('both stand');
    a.close();
    await b.closed;
  });

  it('whose receiver throws is closed', async () => {
    const [a, b] = await links();
    a.receive(() => {});
    b.receive(() => {
      throw new Error('broken here');
    });
    a.send(Buffer.from('frame'));
    expect(await b.closed).toMatchObject({ code: 'LINK_LOST', cause: expect.objectContaining({ message: 'broken here' }) });
    expect(await a.closed).toMatchObject({ code: 'LINK_LOST' });
  });
});
