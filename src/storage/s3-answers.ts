// What an S3 server answers: lists and errors out of its XML, and what an error means. Pure.
//
// The XML of S3 is flat: the elements that are looked for have no attributes, and hold text or other elements.
//
// Invariant A1: tried again is what another try can mend — faults of the server (5xx), its wish to be asked slower (429, SlowDown), and what was damaged or got stuck
// on the way there (RequestTimeout, BadDigest …). What says that the request is wrong is not.

import { MillraceError } from '../errors.ts';

export interface S3Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: Buffer;
}

/** Where the question was asked, for sentences. */
export interface S3Asked {
  readonly what: string;
  readonly address: string;
  readonly bucket: string;
  readonly endpoint: string;
  readonly region: string;
  /** The keys come from a function, which may have newer ones. */
  readonly credentialsMayChange: boolean;
}

export interface S3Fault {
  readonly error: Error;
  readonly again: boolean;
  /** By how many milliseconds the server's clock is ahead, where it found the times too far apart. */
  readonly aheadMs?: number;
  /** Milliseconds that the server wants to be left alone. */
  readonly afterMs?: number;
}

export interface S3Listing {
  readonly keys: readonly string[];
  readonly folders: readonly string[];
  /** Undefined: that was all. */
  readonly next: string | undefined;
}

export interface S3Upload {
  readonly key: string;
  readonly id: string;
}

export function listingOf(xml: string): S3Listing {
  const next = textOf(xml, 'NextContinuationToken');
  return {
    keys: elementsOf(xml, 'Contents').map((each) => textOf(each, 'Key') ?? ''),
    folders: elementsOf(xml, 'CommonPrefixes').map((each) => textOf(each, 'Prefix') ?? ''),
    next: textOf(xml, 'IsTruncated') === 'true' && next !== '' ? next : undefined,
  };
}

export function uploadsOf(xml: string): { readonly uploads: readonly S3Upload[]; readonly next: { readonly key: string; readonly id: string } | undefined } {
  const uploads = elementsOf(xml, 'Upload').map((each) => ({ key: textOf(each, 'Key') ?? '', id: textOf(each, 'UploadId') ?? '' }));
  const key = textOf(xml, 'NextKeyMarker') ?? '';
  const more = textOf(xml, 'IsTruncated') === 'true' && key !== '';
  return { uploads, next: more ? { key, id: textOf(xml, 'NextUploadIdMarker') ?? '' } : undefined };
}

/** The text of the first element of that name; undefined where there is none. */
export function textOf(xml: string, name: string): string | undefined {
  const [first] = elementsOf(xml, name);
  return first === undefined ? undefined : unescaped(first);
}

function elementsOf(xml: string, name: string): string[] {
  return [...xml.matchAll(new RegExp(`<${name}(?:\\s[^>]*)?(?:/>|>([\\s\\S]*?)</${name}>)`, 'g'))].map(([, content]) => content ?? '');
}

const ENTITIES: Readonly<Record<string, string>> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" };

function unescaped(text: string): string {
  return text.replace(/&(?:#x([0-9a-f]+)|#(\d+)|(amp|lt|gt|quot|apos));/gi, (_, hex?: string, digits?: string, name?: string) =>
    name === undefined ? String.fromCodePoint(hex === undefined ? Number(digits) : Number.parseInt(hex, 16)) : ENTITIES[name.toLowerCase()]!,
  );
}

export function escaped(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&${Object.keys(ENTITIES).find((name) => ENTITIES[name] === character)};`);
}

/** The answer says so in its status, or, to what takes the server long, in its body. */
export function isFault({ status, body }: S3Answer): boolean {
  return status < 200 || status > 299 || /^\s*(?:<\?xml[^>]*>\s*)?<Error[\s>]/.test(body.subarray(0, 256).toString('utf8'));
}

const AGAIN_CODES: ReadonlySet<string | undefined> = new Set([
  'RequestTimeout',
  'SlowDown',
  'Throttling',
  'TooManyRequests',
  'RequestLimitExceeded',
  'BadDigest',
  'IncompleteBody',
  'XAmzContentSHA256Mismatch',
  'XAmzContentChecksumMismatch',
  'ConditionalRequestConflict',
  'OperationAborted',
  'InternalError',
  'ServiceUnavailable',
]);
const CREDENTIAL_CODES: ReadonlySet<string | undefined> = new Set([
  'InvalidAccessKeyId',
  'SignatureDoesNotMatch',
  'InvalidToken',
  'ExpiredToken',
  'TokenRefreshRequired',
]);
const REGION_CODES: ReadonlySet<string | undefined> = new Set([
  'PermanentRedirect',
  'TemporaryRedirect',
  'AuthorizationHeaderMalformed',
  'IllegalLocationConstraintException',
]);

/** What a fault means. Of a file that is not there, or is there already, the code says so: ENOENT, EEXIST. */
export function faultOf(answer: S3Answer, asked: S3Asked, now: number): S3Fault {
  const { status, headers } = answer;
  const xml = answer.body.toString('utf8');
  const code = textOf(xml, 'Code');
  const said = `${code ?? `HTTP ${status}`}${textOf(xml, 'Message') === undefined ? '' : `: ${textOf(xml, 'Message')}`}`.replace(/\.$/, '');
  const { what, address, bucket, endpoint } = asked;
  const fault = (error: Error, more: Partial<S3Fault> = {}): S3Fault => ({ error, again: false, ...more });

  if (code === 'RequestTimeTooSkewed') {
    const theirs = Date.parse(String(headers.date ?? ''));
    const error = new MillraceError('STORAGE_CLOCK_SKEW', `The clocks of this machine and of ${endpoint} differ too much: ${said}.`, {
      todo: 'Set the clock of this machine (NTP).',
    });
    return fault(error, Number.isNaN(theirs) ? {} : { aheadMs: theirs - now });
  }
  if (CREDENTIAL_CODES.has(code)) {
    const error = new MillraceError('STORAGE_CREDENTIALS', `${endpoint} does not accept the credentials: ${said}.`, {
      retryable: asked.credentialsMayChange && (code === 'ExpiredToken' || code === 'TokenRefreshRequired'),
      todo: 'Correct `credentials`, or AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN; of keys that expire pass a function that gets new ones.',
    });
    return fault(error, { again: error.retryable });
  }
  if (code === 'NoSuchBucket')
    return fault(
      new MillraceError('STORAGE_NO_BUCKET', `There is no bucket '${bucket}' at ${endpoint}.`, {
        todo: 'Make it, or correct `bucket`, `region` or `endpoint`.',
      }),
    );
  if (REGION_CODES.has(code) || status === 301) {
    const region = textOf(xml, 'Region') ?? headers['x-amz-bucket-region'];
    return fault(
      new MillraceError('STORAGE_REFUSED', `The bucket '${bucket}' is not to be asked as region '${asked.region}' at ${endpoint}: ${said}.`, {
        todo: `Set \`region\`${region === undefined ? '' : ` to '${String(region)}'`} (AWS_REGION).`,
      }),
    );
  }
  if (status === 412) return fault(Object.assign(new Error(`EEXIST: there is an object already, ${what} '${address}'`), { code: 'EEXIST' }));
  if (code === 'NoSuchKey' || code === 'NoSuchUpload' || (status === 404 && code === undefined))
    return fault(Object.assign(new Error(`ENOENT: no such object, ${what} '${address}'`), { code: 'ENOENT', upload: code === 'NoSuchUpload' }));
  const damagedOnTheWay = AGAIN_CODES.has(code) || status === 408 || status === 429;
  if (damagedOnTheWay || (status >= 500 && status !== 501)) {
    const seconds = Number(headers['retry-after'] ?? Number.NaN);
    const error = new MillraceError('STORAGE_FAILED', `${endpoint} could not ${what} ${address}: ${said}.`, {
      todo: 'Look at the state of that service; raise `retries` where it is often so.',
    });
    return fault(error, { again: true, ...(seconds >= 0 ? { afterMs: seconds * 1000 } : {}) });
  }
  if (status === 403 || status === 401)
    return fault(
      new MillraceError('STORAGE_FORBIDDEN', `These credentials may not ${what} ${address}: ${said}.`, {
        todo: 'Grant s3:GetObject, PutObject, DeleteObject and AbortMultipartUpload on its objects, s3:ListBucket and ListBucketMultipartUploads on the bucket.',
      }),
    );
  return fault(
    new MillraceError('STORAGE_REFUSED', `${endpoint} refused to ${what} ${address}: ${said}.`, {
      todo: status === 501 ? 'That server lacks what is needed.' : 'Is it an S3 endpoint? Look at `endpoint`, `region` and `pathStyle`.',
    }),
  );
}

/** Not the network's fault: the same at every try. */
const HOPELESS = /^(CERT_|ERR_TLS|ERR_SSL|EPROTO|HPE_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO|HOSTNAME_MISMATCH|ERR_INVALID|ERR_UNESCAPED)/;

/** A connection that failed, or an answer that broke off. */
export function connectionFault(cause: Error & { code?: string }, { what, address, endpoint }: S3Asked): S3Fault {
  const said = cause.message === '' ? (cause.code ?? 'no connection') : cause.message;
  const hopeless = HOPELESS.test(cause.code ?? '');
  const error = new MillraceError('STORAGE_UNREACHABLE', `${endpoint} could not be reached to ${what} ${address}: ${said}.`, {
    cause,
    retryable: !hopeless,
    todo: hopeless ? 'Look at `endpoint`: http or https, and certificates (NODE_EXTRA_CA_CERTS).' : 'Does it run, and is `endpoint` right?',
  });
  return { error, again: !hopeless };
}
