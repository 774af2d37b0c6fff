import { describe, expect, it } from 'vitest';
import { type SignableRequest, sha256, signed } from '../../src/storage/signature.ts';

// The examples of Amazon's own description of signature version 4 for S3.
const context = {
  credentials: { accessKeyId: 'AKIAIOSFODNN7EXAMPLE', secretAccessKey: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY' },
  region: 'us-east-1',
  at: new Date('2013-05-24T00:00:00Z'),
};
const host = 'examplebucket.s3.amazonaws.com';
const EXAMPLES: readonly { what: string; request: SignableRequest; signature: string }[] = [
  {
    what: 'of a read of a range',
    request: { method: 'GET', path: '/test.txt', query: {}, headers: { host, range: 'bytes=0-9' }, bodyHash: sha256('') },
    signature: 'f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41',
  },
  {
    what: 'of a write, the name of which must be encoded',
    request: {
      method: 'PUT',
      path: '/test%24file.text',
      query: {},
      headers: { host, date: 'Fri, 24 May 2013 00:00:00 GMT', 'x-amz-storage-class': 'REDUCED_REDUNDANCY' },
      bodyHash: sha256('Welcome to Amazon S3.'),
    },
    signature: '98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd',
  },
  {
    what: 'with a parameter that has no value',
    request: { method: 'GET', path: '/', query: { lifecycle: '' }, headers: { host }, bodyHash: sha256('') },
    signature: 'fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543',
  },
  {
    what: 'of a list',
    request: { method: 'GET', path: '/', query: { prefix: 'J', 'max-keys': '2' }, headers: { host }, bodyHash: sha256('') },
    signature: '34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7',
  },
];

describe('the signature', () => {
  for (const { what, request, signature } of EXAMPLES)
    it(`${what} is the one of the published example`, () => {
      expect(signed(request, context).authorization).toContain(`Signature=${signature}`);
    });

  it('holds the session token of keys that expire', () => {
    const { request } = EXAMPLES[2]!;
    const headers = signed(request, { ...context, credentials: { ...context.credentials, sessionToken: 'token' } });
    expect(headers).toMatchObject({ 'x-amz-security-token': 'token' });
    expect(headers.authorization).toContain('SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token');
  });
});
