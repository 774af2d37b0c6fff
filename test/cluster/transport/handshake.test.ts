import { createHmac, randomBytes } from 'node:crypto';
import type { Socket } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { type HandshakeOptions, HELLO_MAX, type Hello, introduce, judge, LINK_VERSION, welcome } from '../../../src/cluster/transport/handshake.ts';
import { Random, rounds, SEED } from '../../random.ts';
import { socketPair } from './sockets.ts';

const ALPHA: Hello = { cluster: 'c', worker: 'alpha', epoch: 3, plans: ['p1', 'p2'] };
const BETA: Hello = { cluster: 'c', worker: 'beta', epoch: 3, plans: ['p2'] };

const opened: Socket[] = [];
afterEach(() => {
  for (const socket of opened.splice(0)) socket.destroy();
});

async function sockets(): Promise<[Socket, Socket]> {
  const pair = await socketPair();
  opened.push(...pair);
  return pair;
}

/** What both sides make of it: hello or code and sentence. */
async function meet(dialer: Partial<HandshakeOptions>, acceptor: Partial<HandshakeOptions>, expected = 'beta'): Promise<[unknown, unknown]> {
  const [a, b] = await sockets();
  const both = await Promise.allSettled([
    introduce(a, 'beta', expected, { hello: ALPHA, secret: 'open sesame', ...dialer }),
    welcome(b, 'alpha', { hello: BETA, secret: 'open sesame', ...acceptor }),
  ]);
  return both.map((side) => (side.status === 'fulfilled' ? side.value.theirs : side.reason)) as [unknown, unknown];
}

const REFUSED = (why: string) => expect.objectContaining({ code: 'LINK_REFUSED', message: expect.stringContaining(why) });

describe('two workers', () => {
  it('with one secret learn who the other is', async () => {
    expect(await meet({}, {})).toEqual([BETA, ALPHA]);
    expect(await meet({ secret: '' }, { secret: '' })).toEqual([BETA, ALPHA]);
  });

  it('may begin to send at once: what comes behind the handshake is kept', async () => {
    const [a, b] = await sockets();
    const [, accepted] = await Promise.all([
      introduce(a, 'beta', 'beta', { hello: ALPHA, secret: 's' }).then(() => new Promise((resolve) => a.write('behind it', resolve))),
      welcome(b, 'alpha', { hello: BETA, secret: 's' }),
    ]);
    let read = accepted.read.toString();
    while (read.length < 9) {
      b.resume();
      read += await new Promise<string>((resolve) => b.once('data', (bytes) => resolve(bytes.toString())));
    }
    expect(read).toBe('behind it');
  });

  for (const [what, dialer, acceptor, why] of [
    ['secrets', { secret: 'other' }, {}, 'secrets'],
    ['secrets, one without any', { secret: '' }, {}, 'secrets'],
    ['clusters', { hello: { ...ALPHA, cluster: 'd' } }, {}, 'different clusters'],
    ['programs', { hello: { ...ALPHA, plans: ['p9'] } }, {}, 'different programs'],
    ['epochs, the dialer behind', { hello: { ...ALPHA, epoch: 2 } }, {}, 'succeeded'],
    ['epochs, the acceptor behind', {}, { hello: { ...BETA, epoch: 2 } }, 'succeeded'],
  ] as const) {
    it(`of different ${what} refuse each other, and both know why`, async () => {
      const [atDialer, atAcceptor] = await meet(dialer, acceptor);
      expect(atDialer).toEqual(REFUSED(why));
      expect(atAcceptor).toEqual(REFUSED(why));
    });
  }

  it('refuse where another worker has the address now', async () => {
    expect(await meet({}, {}, 'gamma')).toEqual([REFUSED('another worker'), REFUSED('another worker')]);
  });

  it('may try again where only the epoch was old, and not with a wrong secret', async () => {
    expect((await meet({ hello: { ...ALPHA, epoch: 2 } }, {}))[0]).toMatchObject({ retryable: true });
    expect((await meet({ secret: 'x' }, {}))[0]).toMatchObject({ retryable: false });
  });
});

describe('who may speak', () => {
  for (const [ours, theirs, verdict] of [
    [{}, {}, undefined],
    [{ plans: [] }, {}, undefined],
    [{}, { plans: [] }, undefined],
    [{}, { plans: ['p2'] }, undefined],
    [{}, { plans: ['p3'] }, 'plan'],
    [{}, { epoch: 4 }, undefined],
    [{}, { epoch: 2 }, 'epoch'],
    [{}, { cluster: 'x' }, 'cluster'],
    [{}, { worker: 'alpha' }, 'worker'],
  ] as const) {
    it(`${JSON.stringify(ours)} of ${JSON.stringify(theirs)} says ${verdict ?? 'welcome'}`, () => {
      expect(judge({ ...ALPHA, ...ours }, { ...BETA, ...theirs })).toBe(verdict);
    });
  }
});

describe('a stranger', () => {
  const magic = Buffer.from('MRLK');
  const greeting = (version = LINK_VERSION, nonce = randomBytes(32)) => Buffer.concat([magic, Buffer.from([version, 0]), nonce]);
  const proof = (secret: string, role: string, nonces: Buffer, hello: Buffer) =>
    createHmac('sha256', secret).update(`millrace ${LINK_VERSION} ${role}\0`).update(nonces).update(hello).digest();
  const said = (hello: Buffer) => {
    const length = Buffer.alloc(4);
    length.writeUInt32LE(hello.length, 0);
    return Buffer.concat([length, hello]);
  };

  /** What an acceptor makes of what a stranger writes, and all that it answered. */
  async function against(speak: (socket: Socket, read: (n: number) => Promise<Buffer>) => Promise<void> | void, options: Partial<HandshakeOptions> = {}) {
    const [a, b] = await sockets();
    const answers: Buffer[] = [];
    let wake = (): void => {};
    a.on('data', (bytes) => {
      answers.push(bytes);
      wake();
    });
    const closed = new Promise<void>((resolve) => a.on('close', () => resolve()));
    const outcome = welcome(b, 'stranger', { hello: BETA, secret: 's', ...options }).then(
      () => 'let in',
      (error: unknown) => error,
    );
    await speak(a, async (n) => {
      while (Buffer.concat(answers).length < n) await new Promise<void>((resolve) => (wake = resolve));
      return Buffer.concat(answers).subarray(0, n);
    });
    const error = await outcome;
    if (error !== 'let in') await closed;
    return { error, answered: Buffer.concat(answers) };
  }

  it('that speaks another protocol is refused at its first bytes, unanswered', async () => {
    for (const bytes of ['GET / HTTP/1.1\r\n\r\n', '\x16\x03\x01\x02\x00', '\0\0\0\0', 'mrlk']) {
      const { error, answered } = await against((socket) => void socket.write(bytes, 'latin1'));
      expect(error).toEqual(REFUSED('not what a worker says'));
      expect(answered.length).toBe(0);
    }
  });

  it('that sends anything at all is refused', async () => {
    for (let round = 0; round < rounds(15); round++) {
      const random = new Random(SEED + round);
      const garbage = Buffer.from(Array.from({ length: random.between(40, 400) }, () => random.below(256)));
      // As long as a hello may be, half of the time.
      if (random.once(2)) garbage.writeUInt32LE(random.below(200), 0);
      const bytes = Buffer.concat([random.of([Buffer.alloc(0), greeting(), greeting().subarray(0, random.between(4, 38))]), garbage]);
      const { error } = await against((socket) => void socket.end(bytes));
      expect(['LINK_REFUSED', 'LINK_LOST'], `seed ${SEED + round}`).toContain((error as { code: string }).code);
    }
  });

  it('of an older version is told ours, and refused', async () => {
    const { error, answered } = await against((socket) => void socket.write(greeting(LINK_VERSION + 1)));
    expect(error).toEqual(REFUSED('versions'));
    expect(answered.subarray(0, 6)).toEqual(Buffer.concat([magic, Buffer.from([LINK_VERSION, 0])]));
    const [a, b] = await sockets();
    b.write(greeting(LINK_VERSION + 1));
    await expect(introduce(a, 'beta', 'beta', { hello: ALPHA, secret: 's' })).rejects.toEqual(REFUSED('versions'));
  });

  it('that says its hello has four gigabytes is refused', async () => {
    for (const length of [HELLO_MAX + 1, 2 ** 32 - 1]) {
      const { error } = await against((socket) => {
        const bytes = Buffer.alloc(4);
        bytes.writeUInt32LE(length, 0);
        socket.write(Buffer.concat([greeting(), bytes, Buffer.alloc(100)]));
      });
      expect(error).toEqual(REFUSED('not what a worker says'));
    }
  });

  it('that drips its bytes, or says nothing, has no more time than others', async () => {
    const { error } = await against(
      async (socket) => {
        const bytes = greeting();
        for (let i = 0; i < bytes.length && !socket.destroyed; i++) {
          socket.write(bytes.subarray(i, i + 1));
          await new Promise((resolve) => setTimeout(resolve, 10));
        }
      },
      { time: 100 },
    );
    expect(error).toMatchObject({ code: 'LINK_LOST' });
    expect((await against(() => {}, { time: 50 })).error).toMatchObject({ code: 'LINK_LOST' });
  });

  it('that leaves in the middle is a connection that was lost', async () => {
    const { error } = await against((socket) => void socket.end(greeting().subarray(0, 20)));
    expect(error).toMatchObject({ code: 'LINK_LOST' });
  });

  it('that repeats what a worker once proved is refused', async () => {
    const hello = Buffer.from(JSON.stringify(ALPHA));
    const nonce = randomBytes(32);
    let recorded = Buffer.alloc(0);
    const first = await against(async (socket, read) => {
      socket.write(greeting(LINK_VERSION, nonce));
      const theirs = (await read(38)).subarray(6);
      recorded = Buffer.concat([said(hello), proof('s', 'dialer', Buffer.concat([nonce, theirs]), hello)]);
      socket.write(Buffer.concat([recorded, Buffer.from([0])]));
    });
    expect(first.error).toBe('let in');
    const second = await against(async (socket, read) => {
      socket.write(greeting(LINK_VERSION, nonce));
      await read(38);
      socket.write(recorded);
    });
    expect(second.error).toEqual(REFUSED('secrets'));
    // One byte says so, and nothing that the secret was used for.
    expect(second.answered.length).toBe(39);
  });

  it('that throws our own proof back is refused, in either role', async () => {
    const [a, b] = await sockets();
    const dialing = introduce(a, 'mirror', 'beta', { hello: ALPHA, secret: 's' });
    b.on('data', (bytes) => {
      b.write(bytes.length === 38 ? bytes : Buffer.concat([Buffer.from([0]), bytes]));
    });
    await expect(dialing).rejects.toEqual(REFUSED('secrets'));
  });

  it('that changes the hello of a worker on the way is refused', async () => {
    const { error } = await against(async (socket, read) => {
      const nonce = randomBytes(32);
      const hello = Buffer.from(JSON.stringify(ALPHA));
      socket.write(greeting(LINK_VERSION, nonce));
      const right = proof('s', 'dialer', Buffer.concat([nonce, (await read(38)).subarray(6)]), hello);
      socket.write(Buffer.concat([said(Buffer.from(JSON.stringify({ ...ALPHA, epoch: 9 }))), right]));
    });
    expect(error).toEqual(REFUSED('secrets'));
  });

  it('that knows the secret and says nonsense is refused', async () => {
    for (const nonsense of [
      '',
      'null',
      '[]',
      '{"cluster":1}',
      '{"cluster":"c","worker":"a","epoch":1.5,"plans":[]}',
      '{"cluster":"c","worker":"a","epoch":1,"plans":[1]}',
      '{',
    ]) {
      const { error } = await against(async (socket, read) => {
        const nonce = randomBytes(32);
        const hello = Buffer.from(nonsense);
        socket.write(greeting(LINK_VERSION, nonce));
        const theirs = (await read(38)).subarray(6);
        socket.write(Buffer.concat([said(hello), proof('s', 'dialer', Buffer.concat([nonce, theirs]), hello)]));
      });
      expect(error).toEqual(REFUSED('not what a worker says'));
    }
  });
});
