// The signature of a body that is sent over HTTP: an HMAC under a secret that both sides know, in a header.

import { createHmac, timingSafeEqual } from 'node:crypto';
import { MillraceError } from '../errors.ts';

/** How bodies are signed. */
export interface BodySignature {
  /** Of several, any is accepted, and the first is used to sign: so that a secret can be changed. */
  secret: string | readonly string[];
  /** The header it stands in; 'x-hub-signature-256' by default, as GitHub has it. */
  header?: string;
  /** 'sha256' by default. */
  algorithm?: 'sha1' | 'sha256' | 'sha512';
  /** 'hex' by default. */
  encoding?: 'hex' | 'base64';
  /** What stands in front of it in the header; `sha256=` by default with the default header, else nothing. */
  prefix?: string;
}

export class BodySigner {
  readonly header: string;
  readonly #secrets: readonly string[];
  readonly #algorithm: string;
  readonly #encoding: 'hex' | 'base64';
  readonly #prefix: string;

  constructor({ secret, header, algorithm = 'sha256', encoding = 'hex', prefix }: BodySignature) {
    this.#secrets = typeof secret === 'string' ? [secret] : [...secret];
    if (this.#secrets.length === 0 || this.#secrets.some((each) => typeof each !== 'string' || each === ''))
      throw new MillraceError('OPTION_INVALID', 'A signature needs a secret that is not empty.', { todo: 'Is the variable set that it comes from?' });
    this.header = (header ?? 'x-hub-signature-256').toLowerCase();
    this.#algorithm = algorithm;
    this.#encoding = encoding;
    this.#prefix = prefix ?? (header === undefined ? `${algorithm}=` : '');
  }

  sign(body: Uint8Array): string {
    return `${this.#prefix}${this.#of(this.#secrets[0]!, body).toString(this.#encoding)}`;
  }

  /** Takes as long for a wrong one as for a right one. */
  accepts(given: unknown, body: Uint8Array): boolean {
    if (typeof given !== 'string' || !given.startsWith(this.#prefix)) return false;
    const bytes = Buffer.from(given.slice(this.#prefix.length), this.#encoding);
    let right = false;
    for (const secret of this.#secrets) {
      const expected = this.#of(secret, body);
      // Every secret is tried, so that time says nothing of which one was right.
      right = (bytes.length === expected.length && timingSafeEqual(bytes, expected)) || right;
    }
    return right;
  }

  #of(secret: string, body: Uint8Array): Buffer {
    return createHmac(this.#algorithm, secret).update(body).digest();
  }
}
