// Two ends of a link within a test, which decides when what was sent arrives. Frames are copied, as in a real one.

import type { Link } from '../../../src/cluster/transport/link.ts';
import type { MillraceError } from '../../../src/errors.ts';

export class MemoryLink implements Link {
  readonly peer = 'the other end';
  readonly frameMax: number;
  readonly closed: Promise<MillraceError | undefined>;
  drained: (() => void) | undefined;
  other!: MemoryLink;
  /** Set by tests: whoever can wait should. */
  full = false;
  /** Every frame that was sent, with what was known of it. */
  readonly sent: Buffer[] = [];
  readonly #arriving: Buffer[] = [];
  #take: ((frame: Buffer) => void) | undefined;
  #settle!: (error: MillraceError | undefined) => void;
  #open = true;

  static pair(frameMax = 1 << 24): [MemoryLink, MemoryLink] {
    const [a, b] = [new MemoryLink(frameMax), new MemoryLink(frameMax)];
    a.other = b;
    b.other = a;
    return [a, b];
  }

  private constructor(frameMax: number) {
    this.frameMax = frameMax;
    this.closed = new Promise((resolve) => {
      this.#settle = resolve;
    });
  }

  get buffered(): number {
    return this.full ? 1 : 0;
  }
  get ready(): boolean {
    return !this.full;
  }
  /** Frames on their way to this end. */
  get coming(): number {
    return this.#arriving.length;
  }

  drain(): void {
    this.full = false;
    this.drained?.();
  }
  send(frame: Uint8Array): void {
    if (!this.#open) return;
    const copy = Buffer.from(frame);
    this.sent.push(copy);
    this.other.#arriving.push(copy);
  }
  receive(take: (frame: Buffer) => void): void {
    this.#take = take;
  }
  /** The next frame arrives here. */
  deliver(): void {
    const frame = this.#arriving.shift();
    if (frame === undefined || !this.#open) return;
    const lent = Buffer.from(frame);
    this.#take!(lent);
    lent.fill(0xaa);
  }
  close(error?: MillraceError): void {
    if (!this.#open) return;
    this.#open = false;
    this.#settle(error);
    this.other.close(error);
  }
}
