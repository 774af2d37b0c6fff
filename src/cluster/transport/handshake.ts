// Who may speak: what two workers say to each other before the first frame. Nothing of a stranger is parsed but lengths and one small JSON object, and that only
// once its proof holds.
//
//   dialer → acceptor   'MRLK', version (u16 LE), nonce (32 bytes)
//   acceptor → dialer   the same
//   dialer → acceptor   length (u32 LE), hello (JSON), proof (32 bytes)
//   acceptor → dialer   verdict (u8); where it is 0 length, hello, proof
//   dialer → acceptor   verdict
//
// A proof is HMAC-SHA256 with the cluster's secret over the role, both nonces, what TLS has agreed on (where it is used), and the hello. The dialer proves first:
// whoever only connects learns nothing that was made with the secret.
//
// Invariants:
//  P1  A proof holds for these two nonces, this role and this hello: one that was recorded, or that is ours thrown back, does not.
//  P2  Before the proof a stranger has `time` milliseconds and HELLO_MAX bytes; no answer says more than one of the verdicts below.
//  P3  Where it fails both sides know why, as far as the other may know, and the socket is destroyed.
//
// A secret keeps strangers out; it does not hide or protect what follows. Where others can read or change what is on the wire, use TLS.

import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { MillraceError, messageOf } from '../../errors.ts';

const MAGIC = Buffer.from('MRLK', 'latin1');
export const LINK_VERSION = 1;
const NONCE = 32;
const PROOF = 32;
const GREETING = MAGIC.length + 2 + NONCE;
/** Bytes of a hello. */
export const HELLO_MAX = 1 << 16;

/** What a worker says of itself. */
export interface Hello {
  /** The cluster that it belongs to. */
  readonly cluster: string;
  /** Its id, of this life of the process. */
  readonly worker: string;
  /** The newest epoch of a leader that it knows. */
  readonly epoch: number;
  /** Hashes of the plans that it can run. */
  readonly plans: readonly string[];
}

const VERDICTS = ['welcome', 'secret', 'version', 'cluster', 'worker', 'epoch', 'plan', 'garbage', 'certificate'] as const;
/** Why somebody is not let in. */
export type Refusal = Exclude<(typeof VERDICTS)[number], 'welcome'>;

const SENTENCES: Record<Refusal, readonly [sentence: string, todo: string]> = {
  secret: ['the secrets of the two differ', 'Give all workers of a cluster the same secret.'],
  version: ['they speak different versions of the protocol', 'Run releases that understand each other.'],
  cluster: ['they belong to different clusters', 'Check the chroot and the name of the cluster, and the addresses that workers advertise.'],
  worker: ['another worker has its address now', 'Nothing: the address of the one that was meant is outdated.'],
  epoch: ['its leader has been succeeded', 'Nothing: it hears of the new leader, and tries again.'],
  plan: ['they run different programs', 'Deploy the same version of the program everywhere; during an upgrade this passes.'],
  certificate: ['the certificates do not fit', 'Let certificates of all workers be signed by the authority in `ca`, and be valid now.'],
  garbage: ['what it said is not what a worker says', 'Let nothing but workers connect to this port.'],
};

/** Whether two workers may speak: pure. What `ours` says of `theirs`. */
export function judge(ours: Hello, theirs: Hello): Refusal | undefined {
  if (theirs.cluster !== ours.cluster) return 'cluster';
  if (theirs.worker === ours.worker) return 'worker';
  if (theirs.epoch < ours.epoch) return 'epoch';
  if (ours.plans.length > 0 && theirs.plans.length > 0 && !theirs.plans.some((plan) => ours.plans.includes(plan))) return 'plan';
  return undefined;
}

export interface HandshakeOptions {
  readonly hello: Hello;
  /** Of the cluster; '' where there is none. */
  readonly secret: string;
  /** Milliseconds for all of it; default 5 s. */
  readonly time?: number | undefined;
  /** Default: `judge`. */
  readonly admit?: ((theirs: Hello) => Refusal | undefined) | undefined;
}

export interface Introduced {
  readonly theirs: Hello;
  /** What has come behind the handshake. */
  readonly read: Buffer;
}

/** A refusal; `by` says which side refused. */
export function refused(refusal: Refusal, peer: string, by: 'us' | 'them', cause?: unknown): MillraceError {
  const [why, todo] = SENTENCES[refusal];
  return new MillraceError('LINK_REFUSED', by === 'us' ? `${peer} was refused: ${why}.` : `${peer} refuses this worker: ${why}.`, {
    todo,
    cause,
    retryable: refusal === 'epoch' || refusal === 'worker',
  });
}

/** The dialer's part; `expected` is whom it means to speak to. Throws LINK_REFUSED and LINK_LOST; the socket is destroyed then. */
export async function introduce(socket: Socket, peer: string, expected: string, options: HandshakeOptions): Promise<Introduced> {
  return within(socket, peer, options, async (wire) => {
    const nonce = randomBytes(NONCE);
    wire.write(greeting(nonce));
    const theirNonce = await wire.greeting();
    const nonces = Buffer.concat([nonce, theirNonce]);
    const hello = Buffer.from(JSON.stringify(options.hello));
    wire.write(said(hello), proof(options.secret, 'dialer', nonces, wire.binding, hello));
    wire.verdict(await wire.take(1));
    const answer = await wire.said();
    wire.check(await wire.take(PROOF), proof(options.secret, 'acceptor', nonces, wire.binding, answer));
    const theirs = wire.hello(answer);
    wire.admit(theirs.worker === expected ? (options.admit ?? ((hello) => judge(options.hello, hello)))(theirs) : 'worker');
    wire.write(Buffer.from([0]));
    return theirs;
  });
}

/** The acceptor's part. Throws LINK_REFUSED and LINK_LOST; the socket is destroyed then. */
export async function welcome(socket: Socket, peer: string, options: HandshakeOptions): Promise<Introduced> {
  return within(socket, peer, options, async (wire) => {
    const theirNonce = await wire.greeting((version) => wire.write(greeting(Buffer.alloc(NONCE), version)));
    const nonce = randomBytes(NONCE);
    wire.write(greeting(nonce));
    const nonces = Buffer.concat([theirNonce, nonce]);
    const said_ = await wire.said();
    wire.check(await wire.take(PROOF), proof(options.secret, 'dialer', nonces, wire.binding, said_));
    const theirs = wire.hello(said_);
    wire.admit((options.admit ?? ((hello) => judge(options.hello, hello)))(theirs));
    const hello = Buffer.from(JSON.stringify(options.hello));
    wire.write(Buffer.from([0]), said(hello), proof(options.secret, 'acceptor', nonces, wire.binding, hello));
    wire.verdict(await wire.take(1));
    return theirs;
  });
}

async function within(socket: Socket, peer: string, { time = 5000 }: HandshakeOptions, speak: (wire: Wire) => Promise<Hello>): Promise<Introduced> {
  const wire = new Wire(socket, peer);
  const late = setTimeout(() => wire.fail(new MillraceError('LINK_LOST', `The handshake with ${peer} took more than ${time} ms.`)), time);
  try {
    const theirs = await speak(wire);
    return { theirs, read: wire.release() };
  } catch (error) {
    wire.release();
    // A verdict goes out first; who does not read it has no more of us than that.
    socket.destroySoon();
    throw error;
  } finally {
    clearTimeout(late);
  }
}

/** The socket during a handshake: exactly as many bytes as are asked for, and no more than fit are ever kept. */
class Wire {
  readonly #socket: Socket;
  readonly #peer: string;
  /** What TLS has agreed on, so that a proof holds on this connection only. */
  readonly binding: Buffer;
  #read: Buffer[] = [];
  #size = 0;
  #wanted: { readonly size: number; readonly resolve: () => void; readonly reject: (error: unknown) => void } | undefined;
  #failed: unknown;

  constructor(socket: Socket, peer: string) {
    this.#socket = socket;
    this.#peer = peer;
    const { exportKeyingMaterial } = socket as Partial<TLSSocket>;
    this.binding =
      exportKeyingMaterial === undefined ? Buffer.alloc(0) : exportKeyingMaterial.call(socket as TLSSocket, 32, 'EXPORTER-millrace-link', Buffer.alloc(0));
    socket.on('data', this.#data).on('end', this.#ended).on('error', this.#broken).on('close', this.#ended).resume();
  }

  readonly #data = (bytes: Buffer): void => {
    this.#read.push(bytes);
    this.#size += bytes.length;
    this.#look();
    // Nobody has asked for it: it waits in the system's buffers, which are bounded.
    if (this.#size > HELLO_MAX * 2) this.#socket.pause();
  };
  readonly #ended = (): void => this.fail(new MillraceError('LINK_LOST', `${this.#peer} closed the connection within the handshake.`));
  readonly #broken = (error: Error): void =>
    this.fail(new MillraceError('LINK_LOST', `The connection to ${this.#peer} broke off: ${messageOf(error)}.`, { cause: error }));

  fail(error: unknown): void {
    this.#failed ??= error;
    this.#wanted?.reject(this.#failed);
    this.#wanted = undefined;
  }

  #look(): void {
    if (this.#wanted === undefined || this.#size < this.#wanted.size) return;
    this.#wanted.resolve();
    this.#wanted = undefined;
  }

  async take(size: number): Promise<Buffer> {
    if (this.#size < size) {
      if (this.#failed !== undefined) throw this.#failed;
      await new Promise<void>((resolve, reject) => {
        this.#wanted = { size, resolve, reject };
      });
    }
    const all = Buffer.concat(this.#read);
    this.#read = [all.subarray(size)];
    this.#size -= size;
    return all.subarray(0, size);
  }

  /** The other side's nonce. `reply` is called with our version where theirs is another one. */
  async greeting(reply?: (version: number) => void): Promise<Buffer> {
    // What does not begin as a worker does is not waited for.
    const magic = await this.take(MAGIC.length);
    if (!magic.equals(MAGIC)) throw refused('garbage', this.#peer, 'us');
    const version = (await this.take(2)).readUInt16LE(0);
    if (version !== LINK_VERSION) {
      reply?.(LINK_VERSION);
      throw refused('version', this.#peer, 'us');
    }
    return this.take(NONCE);
  }

  async said(): Promise<Buffer> {
    const length = (await this.take(4)).readUInt32LE(0);
    if (length > HELLO_MAX) throw refused('garbage', this.#peer, 'us');
    return this.take(length);
  }

  hello(bytes: Buffer): Hello {
    let value: unknown;
    try {
      value = JSON.parse(bytes.toString('utf8'));
    } catch (error) {
      throw refused('garbage', this.#peer, 'us', error);
    }
    const { cluster, worker, epoch, plans } = (value ?? {}) as Record<string, unknown>;
    const fits =
      typeof cluster === 'string' &&
      typeof worker === 'string' &&
      typeof epoch === 'number' &&
      Number.isSafeInteger(epoch) &&
      Array.isArray(plans) &&
      plans.every((plan) => typeof plan === 'string');
    if (!fits) this.admit('garbage');
    return { cluster, worker, epoch, plans } as Hello;
  }

  check(theirs: Buffer, right: Buffer): void {
    if (!timingSafeEqual(theirs, right)) this.admit('secret');
  }

  /** Throws, and tells the other side, where there is a refusal. */
  admit(refusal: Refusal | undefined): void {
    if (refusal === undefined) return;
    this.write(Buffer.from([VERDICTS.indexOf(refusal)]));
    throw refused(refusal, this.#peer, 'us');
  }

  /** Throws where the other side refuses. */
  verdict(byte: Buffer): void {
    const verdict = VERDICTS[byte[0]!] ?? 'garbage';
    if (verdict !== 'welcome') throw refused(verdict, this.#peer, 'them');
  }

  write(...parts: Buffer[]): void {
    this.#socket.write(Buffer.concat(parts));
  }

  /** Gives the socket back, paused; returns what was read and not used. */
  release(): Buffer {
    this.#socket.off('data', this.#data).off('end', this.#ended).off('error', this.#broken).off('close', this.#ended);
    // Whoever has it next listens; until then an error has nobody.
    this.#socket.on('error', () => {});
    this.#socket.pause();
    return Buffer.concat(this.#read);
  }
}

function greeting(nonce: Buffer, version = LINK_VERSION): Buffer {
  const out = Buffer.alloc(GREETING);
  MAGIC.copy(out);
  out.writeUInt16LE(version, MAGIC.length);
  nonce.copy(out, MAGIC.length + 2);
  return out;
}

function said(hello: Buffer): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32LE(hello.length, 0);
  return Buffer.concat([length, hello]);
}

function proof(secret: string, role: 'dialer' | 'acceptor', nonces: Buffer, binding: Buffer, hello: Buffer): Buffer {
  return createHmac('sha256', secret).update(`millrace ${LINK_VERSION} ${role}\0`).update(nonces).update(binding).update(hello).digest();
}
