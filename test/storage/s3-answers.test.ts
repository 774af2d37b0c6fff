import { describe, expect, it } from 'vitest';
import { connectionFault, faultOf, isFault, listingOf, type S3Asked, uploadsOf } from '../../src/storage/s3-answers.ts';

const asked: S3Asked = {
  what: 'write',
  address: 's3://bucket/key',
  bucket: 'bucket',
  endpoint: 'https://s3.example',
  region: 'us-east-1',
  credentialsMayChange: false,
};
const answer = (status: number, code?: string, more = '', headers = {}) => ({
  status,
  headers,
  body: Buffer.from(code === undefined ? '' : `<?xml version="1.0"?>\n<Error><Code>${code}</Code><Message>Said &amp; done.</Message>${more}</Error>`),
});

describe('what an answer means', () => {
  // status, code, the error's code, whether the request is sent again, whether a later try can help
  const TABLE = [
    [500, 'InternalError', 'STORAGE_FAILED', true, true],
    [503, 'SlowDown', 'STORAGE_FAILED', true, true],
    [503, undefined, 'STORAGE_FAILED', true, true],
    [429, 'TooManyRequests', 'STORAGE_FAILED', true, true],
    [400, 'RequestTimeout', 'STORAGE_FAILED', true, true],
    [400, 'BadDigest', 'STORAGE_FAILED', true, true],
    [409, 'ConditionalRequestConflict', 'STORAGE_FAILED', true, true],
    [200, 'InternalError', 'STORAGE_FAILED', true, true],
    [403, 'SignatureDoesNotMatch', 'STORAGE_CREDENTIALS', false, false],
    [403, 'InvalidAccessKeyId', 'STORAGE_CREDENTIALS', false, false],
    [400, 'ExpiredToken', 'STORAGE_CREDENTIALS', false, false],
    [403, 'AccessDenied', 'STORAGE_FORBIDDEN', false, false],
    [403, undefined, 'STORAGE_FORBIDDEN', false, false],
    [404, 'NoSuchBucket', 'STORAGE_NO_BUCKET', false, false],
    [403, 'RequestTimeTooSkewed', 'STORAGE_CLOCK_SKEW', false, false],
    [301, 'PermanentRedirect', 'STORAGE_REFUSED', false, false],
    [400, 'AuthorizationHeaderMalformed', 'STORAGE_REFUSED', false, false],
    [400, 'InvalidArgument', 'STORAGE_REFUSED', false, false],
    [501, 'NotImplemented', 'STORAGE_REFUSED', false, false],
    [404, 'NoSuchKey', 'ENOENT', false, undefined],
    [404, undefined, 'ENOENT', false, undefined],
    [412, 'PreconditionFailed', 'EEXIST', false, undefined],
  ] as const;
  for (const [status, code, error, again, retryable] of TABLE)
    it(`${status} ${code ?? 'without more'} is ${error}, ${again ? 'tried again' : 'final'}`, () => {
      const given = answer(status, code);
      expect(isFault(given)).toBe(true);
      const fault = faultOf(given, asked, 0);
      expect({ code: (fault.error as { code?: string }).code, again: fault.again }).toEqual({ code: error, again });
      expect((fault.error as { retryable?: boolean }).retryable).toBe(retryable);
      expect(fault.error.message).toContain(
        error === 'STORAGE_NO_BUCKET' || error.startsWith('STORAGE_C') || code === 'PermanentRedirect' || code === 'AuthorizationHeaderMalformed'
          ? 's3.example'
          : 's3://bucket/key',
      );
    });

  it('names the region that the bucket has', () => {
    const fault = faultOf(answer(400, 'AuthorizationHeaderMalformed', '<Region>eu-west-1</Region>'), asked, 0);
    expect(fault.error.message).toContain("Set `region` to 'eu-west-1'");
    expect(faultOf(answer(301, undefined, '', { 'x-amz-bucket-region': 'eu-north-1' }), asked, 0).error.message).toContain("'eu-north-1'");
  });

  it('says how far the clocks are apart, and how long the server wants to be left alone', () => {
    expect(faultOf(answer(403, 'RequestTimeTooSkewed', '', { date: 'Thu, 01 Jan 1970 00:01:00 GMT' }), asked, 10_000).aheadMs).toBe(50_000);
    expect(faultOf(answer(503, 'SlowDown', '', { 'retry-after': '3' }), asked, 0).afterMs).toBe(3000);
  });

  it('of expired keys is worth another try where a function may have newer ones', () => {
    const fault = faultOf(answer(400, 'ExpiredToken'), { ...asked, credentialsMayChange: true }, 0);
    expect(fault).toMatchObject({ again: true, error: { retryable: true } });
  });

  it('of a connection that failed is to try again, but not where certificates do not fit', () => {
    const failed = (code: string) => connectionFault(Object.assign(new Error('x'), { code }), asked);
    for (const code of ['ECONNREFUSED', 'ECONNRESET', 'ETIMEDOUT', 'ENOTFOUND', 'EAI_AGAIN', 'EPIPE'])
      expect(failed(code)).toMatchObject({ again: true, error: { retryable: true } });
    for (const code of ['CERT_HAS_EXPIRED', 'SELF_SIGNED_CERT_IN_CHAIN', 'UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'EPROTO', 'HPE_INVALID_CONSTANT'])
      expect(failed(code)).toMatchObject({ again: false, error: { code: 'STORAGE_UNREACHABLE', retryable: false } });
  });
});

describe('a list', () => {
  it('gives keys and folders as they are, and says whether there is more', () => {
    const xml = `<?xml version="1.0"?><ListBucketResult xmlns="x"><IsTruncated>true</IsTruncated><NextContinuationToken>a/b+c=</NextContinuationToken>
      <Contents><Key>p/a&amp;b&#x41;</Key><Size>1</Size></Contents><Contents><Key>p/ü</Key></Contents><CommonPrefixes><Prefix>p/deep/</Prefix></CommonPrefixes></ListBucketResult>`;
    expect(listingOf(xml)).toEqual({ keys: ['p/a&bA', 'p/ü'], folders: ['p/deep/'], next: 'a/b+c=' });
    expect(listingOf('<ListBucketResult><IsTruncated>false</IsTruncated><NextContinuationToken/></ListBucketResult>')).toEqual({
      keys: [],
      folders: [],
      next: undefined,
    });
  });

  it('of uploads gives the numbers that abort them', () => {
    const xml =
      '<ListMultipartUploadsResult><IsTruncated>true</IsTruncated><NextKeyMarker>k</NextKeyMarker><NextUploadIdMarker>i</NextUploadIdMarker><Upload><Key>k</Key><UploadId>i</UploadId></Upload></ListMultipartUploadsResult>';
    expect(uploadsOf(xml)).toEqual({ uploads: [{ key: 'k', id: 'i' }], next: { key: 'k', id: 'i' } });
  });
});
