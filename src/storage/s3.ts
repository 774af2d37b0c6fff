// Checkpoint storage in a bucket of S3, or of a server that speaks its protocol.
//
// What: a file is an object, written in one request or in parts (s3-upload.ts); a folder is a prefix, and holds an empty object of the name `.folder` where it was made
// as one. Requests, retries and errors are those of s3-client.ts. Nothing of a library is needed: the protocol's six requests are small (docs/decisions/0014).
//
// Invariants:
//  B1  Lists and reads are those of a store that is consistent after each write, as S3 is since 2020.
//  B2  A read that breaks off goes on where it was: objects never change.

import { randomBytes } from 'node:crypto';
import { MillraceError } from '../errors.ts';
import type { ByteRange, CheckpointStorage, StoredEntry, StoredFileWriter } from '../graph/storage.ts';
import { connectionFault, listingOf, uploadsOf } from './s3-answers.ts';
import { REAL_WORLD, S3Client, type S3Reply, type S3Request, type S3World } from './s3-client.ts';
import { type S3Checksum, S3Upload } from './s3-upload.ts';
import { encoded, type S3Credentials } from './signature.ts';

/** Where checkpoints go in S3. What is left out comes from the environment variables that every S3 client knows, or has a default. */
export interface S3Options {
  /** Must exist. */
  readonly bucket: string;
  /** In front of every name, without slashes at its ends; none by default. */
  readonly prefix?: string;
  /** AWS_REGION, AWS_DEFAULT_REGION, or us-east-1. */
  readonly region?: string;
  /** The address of the server; AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, or that of AWS in the region. */
  readonly endpoint?: string;
  /** The bucket stands in the path of addresses and not in the name of the host; true by default where an endpoint is named. */
  readonly pathStyle?: boolean;
  /** Keys, or a function that is called before each request and gives them; AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN by default. */
  readonly credentials?: S3Credentials | (() => Promise<S3Credentials> | S3Credentials);
  /** Bytes of a part: what is larger goes in several. 8 MiB by default, 5 MiB at least. Two parts of each file that is being written are in memory, and a third. */
  readonly partBytes?: number;
  /** How often a request is tried again that failed for a reason that can pass; 5 by default. */
  readonly retries?: number;
  /** Milliseconds, of which a random share is waited before each retry: the first, 100 by default; it doubles up to `max`, 10,000. */
  readonly backoff?: { readonly initial?: number; readonly max?: number };
  /** Milliseconds without a byte after which a connection is given up; 15,000 by default. */
  readonly timeout?: number;
  /** What the server compares uploads with, beside the signature's SHA-256: `crc32` by default at AWS, `md5` where an endpoint is named, which every server knows. */
  readonly checksum?: S3Checksum;
  /** Sent where an object is made: encryption, storage class, tags. */
  readonly headers?: Readonly<Record<string, string>>;
}

const MIB = 1 << 20;
const LEAST_PART_BYTES = 5 * MIB;
/** Not a name that ends in a slash: servers that keep objects in directories take that for one, and let it be made twice. */
const MARKER = '.folder';

/**
 * Bytes of checkpoints in S3, or in what speaks its protocol: `checkpoints: { directory, storage: s3({ bucket }) }`. The registry stays in `directory`. Needs no
 * other package. Its errors are the STORAGE_ codes.
 * @param options - The bucket; the rest has defaults.
 * @throws OPTION_INVALID where an option makes no sense.
 * @example
 * const storage = s3({ bucket: 'checkpoints', prefix: 'prod', endpoint: 'http://127.0.0.1:9000', credentials: { accessKeyId: 'me', secretAccessKey: 'secret' } });
 * assert.equal(storage.root, 's3://checkpoints/prod');
 */
export function s3(options: S3Options): CheckpointStorage {
  const { partBytes = LEAST_PART_BYTES } = options;
  if (!Number.isInteger(partBytes) || partBytes < LEAST_PART_BYTES)
    throw invalid(`partBytes ${partBytes}: S3 takes no smaller parts than 5 MiB.`, `Write at least ${LEAST_PART_BYTES}.`);
  return new S3Storage(options);
}

/** What `s3://bucket/folder` means, with everything else from the environment. */
export function s3At(address: string, environment: Readonly<Record<string, string | undefined>> = process.env): CheckpointStorage {
  const { bucket, key } = placeOf(address);
  return new S3Storage({ bucket, prefix: key }, environment);
}

export class S3Storage implements CheckpointStorage {
  readonly kind = 's3';
  readonly checksummed = true;
  /** For other threads. */
  readonly settings: S3Options;
  readonly root: string;
  readonly #client: S3Client;
  readonly #upload: { readonly partBytes: number; readonly checksum: S3Checksum; readonly headers: Readonly<Record<string, string>> };
  /** Whether the server heeds If-None-Match; undefined: not known yet. `refused`: it does not take it. */
  #conditional: 'heeded' | 'ignored' | 'refused' | undefined;

  constructor(options: S3Options, environment: Readonly<Record<string, string | undefined>> = process.env, world: S3World = REAL_WORLD) {
    this.settings = options;
    const { bucket, prefix = '', partBytes = 8 * MIB, retries = 5, timeout = 15_000, headers = {}, backoff = {} } = options;
    if (typeof bucket !== 'string' || !/^[A-Za-z0-9][A-Za-z0-9._-]*$/.test(bucket))
      throw invalid(`'${bucket}' is no name of a bucket.`, 'Write it without s3:// and slashes.');
    if (!Number.isInteger(retries) || retries < 0) throw invalid(`retries ${retries}: it is a whole number.`, 'Write 0 for none.');
    if (!(timeout > 0)) throw invalid(`timeout ${timeout}: it is a number of milliseconds.`, 'Write more than 0.');
    const region = options.region ?? environment.AWS_REGION ?? environment.AWS_DEFAULT_REGION ?? 'us-east-1';
    const named = options.endpoint ?? environment.AWS_ENDPOINT_URL_S3 ?? environment.AWS_ENDPOINT_URL;
    const endpoint = urlOf(named ?? `https://s3.${region}.amazonaws.com${region.startsWith('cn-') ? '.cn' : ''}`);
    if (endpoint === undefined) throw invalid(`'${named}' is no address of a server.`, 'Write http:// or https://, a host, and its port.');
    const { credentials = () => fromEnvironment(environment) } = options;
    const folder = prefix.replace(/^\/+|\/+$/g, '');
    this.root = folder === '' ? `s3://${bucket}` : `s3://${bucket}/${folder}`;
    this.#upload = { partBytes, checksum: options.checksum ?? (named === undefined ? 'crc32' : 'md5'), headers: lowered(headers) };
    this.#client = new S3Client(
      {
        endpoint,
        region,
        // A certificate is for one name in front of the host: a dot would make two of it.
        pathStyle: options.pathStyle ?? (named !== undefined || bucket.includes('.')),
        credentials: typeof credentials === 'function' ? credentials : () => credentials,
        credentialsMayChange: typeof options.credentials === 'function',
        retries,
        backoff: { initial: backoff.initial ?? 100, max: backoff.max ?? 10_000 },
        timeout,
      },
      world,
    );
  }

  owns(address: string): boolean {
    return address.startsWith('s3://');
  }

  /** That these credentials may write, read, list and remove there; and whether the server lets nothing be overwritten. */
  async prepare(folders: readonly string[]): Promise<void> {
    const [folder] = folders;
    if (folder === undefined) return;
    // Attempt 0: swept where this process dies here.
    const probe = placeOf(`${folder}/probe-${randomBytes(8).toString('hex')}-a0`);
    const put = (): Promise<S3Reply> =>
      this.#ask({ what: 'write', method: 'PUT', ...probe, body: Buffer.from('probe'), headers: { ...this.#upload.headers, 'if-none-match': '*' } });
    try {
      await put();
      await put();
      this.#conditional = 'ignored';
    } catch (error) {
      if ((error as { code?: string }).code === 'EEXIST') this.#conditional = 'heeded';
      // What does not know the condition may say so.
      else if ((error as { code?: string }).code === 'STORAGE_REFUSED') {
        await this.#ask({ what: 'write', method: 'PUT', ...probe, body: Buffer.from('probe'), headers: this.#upload.headers });
        this.#conditional = 'refused';
      } else throw error;
    }
    await this.#ask({ what: 'read', method: 'GET', ...probe });
    await this.#ask({ what: 'list', method: 'GET', bucket: probe.bucket, query: { 'list-type': '2', prefix: probe.key, 'max-keys': '1' } });
    await this.#ask({ what: 'remove', method: 'DELETE', ...probe });
  }

  async create(address: string): Promise<StoredFileWriter> {
    const { bucket, key } = placeOf(address);
    if (this.#conditional !== 'heeded' && (await this.#isThere(bucket, key))) throw existing('create', address);
    return new S3Upload(this.#client, {
      ...this.#upload,
      bucket,
      key,
      conditional: this.#conditional !== 'refused',
      begunTwice: (own) => this.#discard(bucket, key, own),
    });
  }

  /** B2. */
  async *read(address: string, range?: ByteRange): AsyncIterable<Uint8Array> {
    const { bucket, key } = placeOf(address);
    const to = range?.to ?? Number.POSITIVE_INFINITY;
    let at = range?.from ?? 0;
    for (let failed = 0; at < to; ) {
      const whole = at === 0 && range === undefined;
      const headers: Record<string, string> = whole ? {} : { range: `bytes=${at}-${to === Number.POSITIVE_INFINITY ? '' : to - 1}` };
      const request: S3Request = { what: 'read', method: 'GET', bucket, key, headers };
      let response: Awaited<ReturnType<S3Client['open']>>['response'];
      try {
        ({ response } = await this.#client.open(request));
      } catch (error) {
        // It ends before.
        if ((error as { status?: number }).status === 416) return;
        throw error;
      }
      // A server that does not know ranges sends everything.
      let passed = response.statusCode === 206 || whole ? at : 0;
      try {
        for await (const chunk of response as AsyncIterable<Buffer>) {
          const part = chunk.subarray(Math.max(0, at - passed), Math.max(0, to - passed));
          passed += chunk.byteLength;
          if (part.byteLength === 0) continue;
          at += part.byteLength;
          failed = 0;
          yield part;
        }
        return;
      } catch (error) {
        const fault = connectionFault(error as Error, this.#client.asked(request));
        if (!fault.again || failed >= this.#client.options.retries) throw fault.error;
        failed += 1;
        await this.#client.pause(failed);
      } finally {
        response.destroy();
      }
    }
  }

  async find(address: string): Promise<'file' | 'folder' | undefined> {
    const { bucket, key } = placeOf(address);
    if (key !== '' && (await this.#isThere(bucket, key))) return 'file';
    const prefix = key === '' ? '' : `${key}/`;
    const { body } = await this.#ask({ what: 'list', method: 'GET', bucket, query: { 'list-type': '2', prefix, 'max-keys': '1' } });
    return listingOf(body.toString('utf8')).keys.length > 0 ? 'folder' : undefined;
  }

  async #isThere(bucket: string, key: string): Promise<boolean> {
    try {
      await this.#ask({ what: 'look at', method: 'HEAD', bucket, key });
      return true;
    } catch (error) {
      if ((error as { code?: string }).code === 'ENOENT') return false;
      throw error;
    }
  }

  async *list(folder: string): AsyncIterable<StoredEntry> {
    const { bucket, key } = placeOf(folder);
    const prefix = key === '' ? '' : `${key}/`;
    const named = (name: string): string => name.slice(prefix.length).replace(/\/$/, '');
    for (let token: string | undefined = ''; token !== undefined; ) {
      const after: Record<string, string> = token === '' ? {} : { 'continuation-token': token };
      const { body } = await this.#ask({ what: 'list', method: 'GET', bucket, query: { 'list-type': '2', prefix, delimiter: '/', ...after } });
      const { keys, folders, next } = listingOf(body.toString('utf8'));
      // What makes the folder a folder is not in it.
      for (const each of [...keys, ...folders]) if (each !== prefix && each !== `${prefix}${MARKER}`) yield { name: named(each), unfinished: false };
      token = next;
    }
    const begun = new Set<string>();
    for await (const { key: each } of this.#uploads(bucket, prefix)) begun.add(named(each));
    for (const name of begun) if (!name.includes('/')) yield { name, unfinished: true };
  }

  async *#uploads(bucket: string, prefix: string): AsyncIterable<{ readonly key: string; readonly id: string }> {
    for (let after: { readonly key: string; readonly id: string } | undefined = { key: '', id: '' }; after !== undefined; ) {
      const markers: Record<string, string> = after.key === '' ? {} : { 'key-marker': after.key, 'upload-id-marker': after.id };
      const { body } = await this.#ask({ what: 'list', method: 'GET', bucket, query: { uploads: '', prefix, ...markers } });
      const { uploads, next } = uploadsOf(body.toString('utf8'));
      // Not every server filters what it lists.
      for (const upload of uploads) if (upload.key.startsWith(prefix)) yield upload;
      after = next;
    }
  }

  async remove(address: string): Promise<void> {
    await this.#ask({ what: 'remove', method: 'DELETE', ...placeOf(address) }).catch(unlessGone);
  }

  async discard(address: string): Promise<void> {
    const { bucket, key } = placeOf(address);
    await this.#discard(bucket, key, undefined);
  }

  async #discard(bucket: string, key: string, but: string | undefined): Promise<void> {
    for await (const upload of this.#uploads(bucket, key)) {
      if (upload.key !== key || upload.id === but) continue;
      await this.#ask({ what: 'abort', method: 'DELETE', bucket, key, query: { uploadId: upload.id } }).catch(unlessGone);
    }
  }

  async makeFolder(address: string): Promise<boolean> {
    try {
      const marker = await this.create(`${address}/${MARKER}`);
      await marker.finish();
      return true;
    } catch (error) {
      if ((error as { code?: string }).code === 'EEXIST') return false;
      throw error;
    }
  }

  /** What was made as a folder; one that is a prefix of names goes with the last of them. */
  removeFolder(address: string): Promise<void> {
    return this.remove(`${address}/${MARKER}`);
  }

  /** By a copy in the server. */
  async adopt(address: string, from: CheckpointStorage, source: string): Promise<boolean> {
    if (!(from instanceof S3Storage) || from.#client.options.endpoint.href !== this.#client.options.endpoint.href) return false;
    const { bucket, key } = placeOf(source);
    const path = [bucket, ...key.split('/')].map(encoded).join('/');
    const target = placeOf(address);
    if (await this.#isThere(target.bucket, target.key)) throw existing('adopt', address);
    try {
      await this.#ask({ what: 'copy', method: 'PUT', ...target, headers: { ...this.#upload.headers, 'x-amz-copy-source': `/${path}` } });
      return true;
    } catch (error) {
      // Of more than 5 GB, or of a server without it: then its bytes come through here.
      if ((error as { code?: string }).code === 'STORAGE_REFUSED') return false;
      throw error;
    }
  }

  #ask(request: S3Request): Promise<S3Reply> {
    return this.#client.ask(request);
  }
}

/** Bucket and key of `s3://bucket/key`. */
export function placeOf(address: string): { readonly bucket: string; readonly key: string } {
  const match = /^s3:\/\/([^/]+)(?:\/(.*))?$/s.exec(address);
  if (match === null) throw new MillraceError('OPTION_INVALID', `'${address}' is no address in S3.`, { todo: 'Write s3://bucket/folder.' });
  return { bucket: match[1]!, key: match[2] ?? '' };
}

function fromEnvironment({ AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN }: Readonly<Record<string, string | undefined>>): S3Credentials {
  if (AWS_ACCESS_KEY_ID === undefined || AWS_SECRET_ACCESS_KEY === undefined || AWS_ACCESS_KEY_ID === '' || AWS_SECRET_ACCESS_KEY === '')
    throw new MillraceError('STORAGE_CREDENTIALS', 'There are no credentials for S3.', {
      todo: 'Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or pass `credentials`: keys, or a function that gets them.',
    });
  return { accessKeyId: AWS_ACCESS_KEY_ID, secretAccessKey: AWS_SECRET_ACCESS_KEY, sessionToken: AWS_SESSION_TOKEN === '' ? undefined : AWS_SESSION_TOKEN };
}

function urlOf(text: string): URL | undefined {
  try {
    const url = new URL(text);
    return ['http:', 'https:'].includes(url.protocol) ? url : undefined;
  } catch {
    return undefined;
  }
}

function lowered(headers: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
}

function invalid(sentence: string, todo: string): MillraceError {
  return new MillraceError('OPTION_INVALID', sentence, { todo });
}

function existing(what: string, address: string): Error {
  return Object.assign(new Error(`EEXIST: there is an object already, ${what} '${address}'`), { code: 'EEXIST' });
}

function unlessGone(error: unknown): void {
  if ((error as { code?: string }).code !== 'ENOENT') throw error;
}
