// A file on its way to S3: one request where it is small, parts where it is not.
//
// What: bytes are collected into parts; the first full one begins a multipart upload, and of full parts a few are under way at once. Whoever appends waits while they
// are. Until the upload is completed nobody sees anything of it; it is then there as a whole.
//
// Invariants:
//  U1  Nothing is overwritten where the server knows If-None-Match; where it does not, whether there is one is asked before.
//  U2  Each upload has a number of its own, kept with the object. Where the answer to the last request was lost and it is sent again, that number tells one's own
//      object from another's.
//  U3  An upload that is given up is aborted, once and without insisting: what that leaves is swept as unfinished.

import { createHash, randomBytes } from 'node:crypto';
import { crc32 } from 'node:zlib';
import type { StoredFileWriter } from '../graph/storage.ts';
import { escaped, textOf } from './s3-answers.ts';
import type { S3Client } from './s3-client.ts';

/** What a server compares uploads with: CRC32, MD5, or the signature's SHA-256 alone. */
export type S3Checksum = 'crc32' | 'md5' | 'none';

export interface S3UploadOptions {
  readonly bucket: string;
  readonly key: string;
  readonly partBytes: number;
  readonly checksum: S3Checksum;
  /** Sent where an object is made. */
  readonly headers: Readonly<Record<string, string>>;
  /** The server heeds If-None-Match. */
  readonly conditional: boolean;
  /** The upload may have been begun more than once: aborts all at that address but this one. */
  readonly begunTwice: (uploadId: string) => Promise<void>;
}

const ID_HEADER = 'x-amz-meta-millrace-write';
/** Of one file, at once. */
const PARTS_UNDER_WAY = 2;
/** S3 takes 10,000 parts: every thousand the next ones are larger by as much as the first ones are. */
const PARTS_OF_A_SIZE = 1000;
const FIRST_BUFFER_BYTES = 1 << 16;

interface Part {
  readonly number: number;
  readonly etag: string;
  readonly crc: string | undefined;
}

export class S3Upload implements StoredFileWriter {
  readonly #client: S3Client;
  readonly #options: S3UploadOptions;
  readonly #id = randomBytes(16).toString('hex');
  readonly #abort = new AbortController();
  #buffer: Buffer | undefined;
  #filled = 0;
  #uploadId: string | undefined;
  readonly #parts: Part[] = [];
  #begun = 0;
  readonly #underWay = new Set<Promise<void>>();
  #failure: { readonly error: unknown } | undefined;
  #over = false;

  constructor(client: S3Client, options: S3UploadOptions) {
    this.#client = client;
    this.#options = options;
  }

  async append(blocks: Iterable<Uint8Array>): Promise<void> {
    for (const block of blocks) {
      let at = 0;
      while (at < block.byteLength) {
        const buffer = this.#room(block.byteLength - at);
        const taken = Math.min(buffer.length - this.#filled, block.byteLength - at);
        buffer.set(block.subarray(at, at + taken), this.#filled);
        this.#filled += taken;
        at += taken;
        if (this.#filled === this.#partBytes) await this.#sendPart();
      }
    }
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  get #partBytes(): number {
    return this.#options.partBytes * (1 + Math.floor(this.#begun / PARTS_OF_A_SIZE));
  }

  /** Grown as it is needed, since most files are small. */
  #room(wanted: number): Buffer {
    const there = this.#buffer;
    if (there !== undefined && this.#filled < there.length) return there;
    const bytes = Math.min(this.#partBytes, Math.max(FIRST_BUFFER_BYTES, 2 * this.#filled, this.#filled + wanted));
    const larger = Buffer.allocUnsafeSlow(bytes);
    if (there !== undefined) larger.set(there.subarray(0, this.#filled));
    this.#buffer = larger;
    return larger;
  }

  #take(): Buffer {
    const taken = this.#buffer?.subarray(0, this.#filled) ?? Buffer.alloc(0);
    this.#buffer = undefined;
    this.#filled = 0;
    return taken;
  }

  async #sendPart(): Promise<void> {
    const body = this.#take();
    const number = ++this.#begun;
    this.#uploadId ??= await this.#begin();
    const uploadId = this.#uploadId;
    while (this.#underWay.size >= PARTS_UNDER_WAY) await Promise.race(this.#underWay);
    if (this.#failure !== undefined) throw this.#failure.error;
    const { bucket, key } = this.#options;
    const checksums = this.#checksums(body);
    const send = async (): Promise<void> => {
      try {
        const { headers } = await this.#client.ask({
          what: 'write',
          method: 'PUT',
          bucket,
          key,
          query: { partNumber: String(number), uploadId },
          headers: checksums,
          body,
          signal: this.#abort.signal,
        });
        this.#parts.push({ number, etag: String(headers.etag ?? ''), crc: checksums['x-amz-checksum-crc32'] });
      } catch (error) {
        this.#failure ??= { error };
      }
    };
    const sending = send().finally(() => this.#underWay.delete(sending));
    this.#underWay.add(sending);
  }

  async #begin(): Promise<string> {
    const { bucket, key, checksum, headers } = this.#options;
    const algorithm: Record<string, string> = checksum === 'crc32' ? { 'x-amz-checksum-algorithm': 'CRC32' } : {};
    const { body, tries } = await this.#client.ask({
      what: 'write',
      method: 'POST',
      bucket,
      key,
      query: { uploads: '' },
      headers: { ...headers, ...algorithm, [ID_HEADER]: this.#id },
      signal: this.#abort.signal,
    });
    const uploadId = textOf(body.toString('utf8'), 'UploadId') ?? '';
    // Of the answer that was lost nobody knows the number.
    if (tries > 1) await this.#options.begunTwice(uploadId);
    return uploadId;
  }

  #checksums(body: Buffer): Record<string, string> {
    switch (this.#options.checksum) {
      case 'crc32': {
        const sum = Buffer.alloc(4);
        sum.writeUInt32BE(crc32(body));
        return { 'x-amz-checksum-crc32': sum.toString('base64') };
      }
      case 'md5':
        return { 'content-md5': createHash('md5').update(body).digest('base64') };
      case 'none':
        return {};
    }
  }

  async finish(): Promise<void> {
    if (this.#uploadId === undefined) await this.#put(this.#take());
    else {
      if (this.#filled > 0) await this.#sendPart();
      await Promise.all(this.#underWay);
      if (this.#failure !== undefined) throw this.#failure.error;
      await this.#complete(this.#uploadId);
    }
    this.#over = true;
  }

  async #put(body: Buffer): Promise<void> {
    const { bucket, key, headers } = this.#options;
    await this.#only(() =>
      this.#client.ask({
        what: 'write',
        method: 'PUT',
        bucket,
        key,
        headers: { ...headers, ...this.#checksums(body), ...this.#condition, [ID_HEADER]: this.#id },
        body,
        signal: this.#abort.signal,
      }),
    );
  }

  async #complete(uploadId: string): Promise<void> {
    const { bucket, key } = this.#options;
    const parts = this.#parts
      .sort((one, other) => one.number - other.number)
      .map(({ number, etag, crc }) => {
        const sum = crc === undefined ? '' : `<ChecksumCRC32>${crc}</ChecksumCRC32>`;
        return `<Part><PartNumber>${number}</PartNumber><ETag>${escaped(etag)}</ETag>${sum}</Part>`;
      });
    await this.#only(() =>
      this.#client.ask({
        what: 'write',
        method: 'POST',
        bucket,
        key,
        query: { uploadId },
        headers: { ...this.#condition, 'content-type': 'application/xml' },
        body: Buffer.from(`<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">${parts.join('')}</CompleteMultipartUpload>`),
        signal: this.#abort.signal,
      }),
    );
  }

  get #condition(): Record<string, string> {
    return this.#options.conditional ? { 'if-none-match': '*' } : {};
  }

  /** U2: the request that makes the object. Sent more than once, it may find what it has made itself, or that its upload is completed. */
  async #only(make: () => Promise<unknown>): Promise<void> {
    try {
      await make();
    } catch (error) {
      const { code, tries = 1 } = error as { code?: string; tries?: number };
      if (tries > 1 && (code === 'EEXIST' || code === 'ENOENT') && (await this.#isOurs())) return;
      throw error;
    }
  }

  async #isOurs(): Promise<boolean> {
    const { bucket, key } = this.#options;
    try {
      const { headers } = await this.#client.ask({ what: 'look at', method: 'HEAD', bucket, key });
      return headers[ID_HEADER] === this.#id;
    } catch (error) {
      if ((error as { code?: string }).code === 'ENOENT') return false;
      throw error;
    }
  }

  /** U3. */
  async abandon(): Promise<void> {
    if (this.#over) return;
    this.#over = true;
    this.#abort.abort();
    await Promise.all(this.#underWay);
    const uploadId = this.#uploadId;
    if (uploadId === undefined) return;
    const { bucket, key } = this.#options;
    await this.#client.ask({ what: 'abort', method: 'DELETE', bucket, key, query: { uploadId }, retries: 0 }).catch((error) => {
      if ((error as { code?: string }).code !== 'ENOENT') throw error;
    });
  }
}
