import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { connect as secured } from 'node:tls';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { TlsOptions } from '../../src/cluster/transport/certificates.ts';
import { introduce } from '../../src/cluster/transport/handshake.ts';
import { ensureBuilt, FOUR, Input } from '../e2e/trial.ts';
import { LONG } from '../long.ts';
import { rejection } from '../protocols/lab.ts';
import { NO_ZOOKEEPER } from '../services/zookeeper.ts';
import { ClusterTrial, SECRET } from './cluster-trial.ts';
import { authority } from './transport/sockets.ts';

/** Below the id of every worker: who has the larger id is dialed. */
const STRANGER = '0-stranger';

class Target {
  readonly id: string;
  readonly #host: string;
  readonly #port: number;
  readonly #tls: TlsOptions | undefined;

  constructor({ id, address }: { id: string; address: string }, tls: TlsOptions | undefined) {
    this.id = id;
    [this.#host, this.#port] = [address.split(':')[0]!, Number(address.split(':')[1])];
    this.#tls = tls;
  }

  async raw(): Promise<Socket> {
    const socket = connect(this.#port, this.#host).on('error', () => {});
    await once(socket, 'connect');
    return socket;
  }

  /** As one of the cluster, as far as the network goes. */
  async socket(tls = this.#tls): Promise<Socket> {
    if (tls === undefined) return this.raw();
    const socket = secured({
      port: this.#port,
      host: this.#host,
      cert: readFileSync(tls.cert),
      key: readFileSync(tls.key),
      ca: readFileSync(tls.ca),
      checkServerIdentity: () => undefined,
    });
    socket.on('error', () => {});
    await once(socket, 'secureConnect');
    return socket;
  }

  async introduced({ secret = SECRET, epoch = 1, worker = STRANGER } = {}): Promise<Socket> {
    const socket = await this.socket();
    await introduce(socket, 'the worker', this.id, { hello: { cluster: '', worker, epoch, plans: [] }, secret });
    return socket;
  }

  /** Resolves when the worker has closed it. */
  async throws(socket: Socket, bytes: Uint8Array): Promise<void> {
    const closed = socket.destroyed ? Promise.resolve() : once(socket, 'close');
    socket.resume();
    socket.write(bytes);
    await closed;
  }
}

const HUGE = Buffer.from([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0]);
const GARBAGE = Buffer.from('GET / HTTP/1.1\r\nhost: nobody\r\n\r\n'.repeat(10));

beforeAll(ensureBuilt, 180_000);

describe.skipIf(NO_ZOOKEEPER).each(LONG ? ['TCP', 'TLS'] : ['TCP'])('strangers at the doors of a job that runs, over %s', (over) => {
  const input = new Input('wc', { records: 5000, files: FOUR });
  afterAll(() => input.remove());

  it('are refused, each logged once; the job is not disturbed', async ({ skip }) => {
    const [ours, others] = over === 'TLS' ? [await authority(), await authority()] : [undefined, undefined];
    if (over === 'TLS' && (ours === undefined || others === undefined)) {
      console.warn('There is no openssl: certificates of strangers are not tried.');
      return skip();
    }
    const tls = await ours?.issue('worker');
    const cluster = await ClusterTrial.open(input);
    const both = await Promise.all([cluster.worker({ held: 2, tls }), cluster.worker({ held: 2, tls })]);
    const run = await cluster.lead({ parallelism: 2, tls });
    await run.start();
    await cluster.next(({ type }) => type === 'checkpoint');
    // Another program: it is a member, and gets no tasks.
    await cluster.worker({ version: '2', tls });
    for (const worker of both) {
      const target = new Target(worker, tls);
      const REFUSED = { code: 'LINK_REFUSED' };
      for (let time = 0; time < 3; time++) {
        expect(await rejection(target.introduced({ secret: 'wrong' }))).toMatchObject(REFUSED);
        expect(await rejection(target.introduced({ epoch: 0 }))).toMatchObject(REFUSED);
        await target.throws(await target.socket(), GARBAGE);
        await target.throws(await target.socket(), HUGE);
        if (over === 'TLS') {
          await target.throws(await target.raw(), GARBAGE);
          const wrong = await others!.issue('stranger');
          // Of TLS 1.3 the dialer learns of it only when it reads.
          await target.socket({ ...wrong, ca: tls!.ca }).then(
            (socket) => target.throws(socket, GARBAGE),
            () => {},
          );
        }
      }
      // Behind a handshake that was in order.
      await target.throws(await target.introduced({ worker: `${STRANGER}-1` }), HUGE);
      await target.throws(await target.introduced({ worker: `${STRANGER}-2` }), Buffer.concat([Buffer.from([12, 0, 0, 0, 0, 0, 0, 0]), Buffer.alloc(8, 0xee)]));
    }
    await cluster.next(({ type }) => type === 'checkpoint');
    cluster.go();
    expect(await run.finished).toMatchObject({ status: 'finished', restarts: 0 });
    expect(await cluster.trial.complaints()).toEqual([]);
    for (const { lines } of both) {
      const warned = lines.filter((line) => line.startsWith('warn'));
      const of = (what: RegExp): number => warned.filter((line) => what.test(line)).length;
      const said = [/secrets of the two differ/, /succeeded/, /what it said is not what a worker says/, /allowed.*stranger-1/, /stranger-2/];
      expect(said.map(of), warned.join('\n')).toEqual(said.map(() => 1));
      // Of some that are refused by TLS itself the address is not known any more.
      const certificates = warned.filter((line) => line.includes('certificates do not fit'));
      expect(new Set(certificates).size).toBe(certificates.length);
      expect(certificates.length > 0).toBe(over === 'TLS');
      expect(warned.length - certificates.length, warned.join('\n')).toBe(said.length);
    }
    cluster.trial.remove();
    ours?.remove();
    others?.remove();
  });
});
