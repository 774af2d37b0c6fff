import { storageConformance } from 'millrace/testing';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { S3Storage, s3 } from '../../src/storage/s3.ts';
import { rejection } from '../protocols/lab.ts';
import { FaultyProxy } from './faulty-proxy.ts';
import { KEYS, NO_SERVER, S3Server } from './s3-server.ts';

const PART = 5 << 20;

describe.skipIf(NO_SERVER)('S3 as checkpoint storage', () => {
  let server: S3Server;
  let proxy: FaultyProxy;
  beforeAll(async () => {
    server = await S3Server.start();
    proxy = await FaultyProxy.start(server);
  });
  afterAll(async () => {
    await proxy.close();
    await server.close();
  });
  afterEach(() => {
    proxy.decide = () => undefined;
  });

  const quick = { credentials: KEYS, partBytes: PART, retries: 2, backoff: { initial: 1, max: 2 } };
  const at = (prefix: string, more = {}) => new S3Storage({ ...quick, endpoint: proxy.endpoint, bucket: server.bucket, prefix, ...more }, {});
  const written = async (storage: S3Storage, name: string, bytes: number): Promise<void> => {
    const writer = await storage.create(`${storage.root}/${name}`);
    await writer.append([Buffer.alloc(bytes, 7)]);
    await writer.finish();
  };
  const bytesOf = async (storage: S3Storage, name: string): Promise<number> => {
    let bytes = 0;
    for await (const part of storage.read(`${storage.root}/${name}`)) bytes += part.byteLength;
    return bytes;
  };

  describe('keeps to the contract', () => {
    const breakable = () => ({
      storage: at('conformance'),
      break: () => {
        proxy.decide = () => 'refuse';
        proxy.cutAll();
      },
      mend: () => {
        proxy.decide = () => undefined;
      },
    });
    for (const { name, run } of storageConformance(() => at('conformance'), { largeBytes: PART + 1000, breakable })) it(name, run);

    for (const checksum of ['md5', 'crc32'] as const)
      it(`with ${checksum} on what is sent`, async () => {
        const storage = at(checksum, { checksum });
        await storage.prepare([storage.root]);
        for (const bytes of [10, PART + 10]) {
          await written(storage, `file-${bytes}`, bytes);
          expect(await bytesOf(storage, `file-${bytes}`)).toBe(bytes);
          await storage.remove(`${storage.root}/file-${bytes}`);
        }
      });

    it('leaves nothing of all that', async () => {
      // Parts that arrive while their upload is aborted stay behind in this server.
      expect((await server.objects('')).filter((name) => !name.startsWith('.mpus-'))).toEqual([]);
    });
  });

  describe('in front of a server that fails', () => {
    for (const [size, bytes, faults] of [
      ['small', 1000, ['refuse', 'lose', 'cut', { status: 503, code: 'SlowDown' }]],
      ['large', PART + 1000, ['lose']],
    ] as const)
      for (const fault of faults)
        it(`writes, reads, lists and removes a ${size} file whatever request meets ${typeof fault === 'string' ? fault : fault.status} once`, async () => {
          const storage = at(`each-${size}-${typeof fault === 'string' ? fault : fault.status}`);
          await storage.prepare([storage.root]);
          const work = async (name: string): Promise<unknown[]> => {
            await written(storage, name, bytes);
            const found: unknown[] = [await bytesOf(storage, name)];
            for await (const { name: each, unfinished } of storage.list(storage.root)) found.push(each === name, unfinished);
            await storage.remove(`${storage.root}/${name}`);
            return found;
          };
          const before = proxy.requests;
          expect(await work('calm')).toEqual([bytes, true, false]);
          const requests = proxy.requests - before;
          for (let hit = 0; hit < requests; hit++) {
            let n = 0;
            proxy.decide = () => (n++ === hit ? fault : undefined);
            expect(await work(`hit-${hit}`)).toEqual([bytes, true, false]);
          }
          expect(await server.objects(storage.root.slice(`s3://${server.bucket}/`.length))).toEqual([]);
        });

    it('goes on reading where the answer broke off', async () => {
      const storage = at('resumed');
      await written(storage, 'file', 3_000_000);
      const ranges: string[] = [];
      let cuts = 5;
      proxy.decide = ({ method }) => {
        if (method !== 'GET') return undefined;
        ranges.push(method);
        return cuts-- > 0 ? 'cut' : undefined;
      };
      // More than `retries` in all: each time something came.
      expect(await bytesOf(storage, 'file')).toBe(3_000_000);
      expect(ranges.length).toBe(6);
      await storage.remove(`${storage.root}/file`);
    });

    it('gives up after `retries`, and says whether later can help', async () => {
      const storage = at('gives-up');
      for (const [fault, code] of [
        ['refuse', 'STORAGE_UNREACHABLE'],
        [{ status: 503, code: 'SlowDown' }, 'STORAGE_FAILED'],
      ] as const) {
        proxy.decide = () => fault;
        const before = proxy.requests;
        expect(await rejection(storage.find(`${storage.root}/x`))).toMatchObject({ code, retryable: true });
        expect(proxy.requests - before).toBe(3);
      }
    });

    it('tries nothing again that is wrong', async () => {
      const storage = at('wrong');
      for (const [status, code] of [
        [403, 'AccessDenied'],
        [400, 'InvalidArgument'],
        [404, 'NoSuchBucket'],
      ] as const) {
        proxy.decide = () => ({ status, code });
        const before = proxy.requests;
        expect(await rejection(storage.prepare([storage.root]))).toMatchObject({ retryable: false });
        // A refusal may be about If-None-Match: that is tried without it.
        expect(proxy.requests - before).toBe(status === 400 ? 2 : 1);
      }
    });

    it('gives up a connection on which nothing moves', async () => {
      proxy.decide = () => 'hang';
      const storage = at('hangs', { timeout: 50, retries: 1 });
      expect(await rejection(storage.find(`${storage.root}/x`))).toMatchObject({
        code: 'STORAGE_UNREACHABLE',
        message: expect.stringContaining('nothing moved for 50 ms'),
      });
    });

    it('asks before it writes where the server does not know If-None-Match', async () => {
      const storage = at('unconditional');
      let refused = 0;
      proxy.decide = ({ method, url }) => (method === 'PUT' && url.includes('probe') && refused++ === 0 ? { status: 501, code: 'NotImplemented' } : undefined);
      await storage.prepare([storage.root]);
      await written(storage, 'file', 10);
      expect(await rejection(written(storage, 'file', 20))).toMatchObject({ code: 'EEXIST' });
      expect(await bytesOf(storage, 'file')).toBe(10);
      await storage.remove(`${storage.root}/file`);
    });
  });

  describe('says what is wrong', () => {
    const prepare = (options: object): Promise<unknown> => {
      const storage = at('wrong', options);
      return rejection(storage.prepare([storage.root]));
    };
    it('with the credentials', async () => {
      expect(await prepare({ credentials: { ...KEYS, secretAccessKey: 'another' } })).toMatchObject({ code: 'STORAGE_CREDENTIALS', retryable: false });
      expect(await prepare({ credentials: { ...KEYS, accessKeyId: 'nobody' } })).toMatchObject({ code: 'STORAGE_CREDENTIALS', retryable: false });
      expect(await prepare({ credentials: undefined })).toMatchObject({ code: 'STORAGE_CREDENTIALS', message: expect.stringContaining('AWS_ACCESS_KEY_ID') });
      expect(await prepare({ credentials: () => Promise.reject(new Error('no network')) })).toMatchObject({ code: 'STORAGE_CREDENTIALS', retryable: true });
      const storage = at('right', { credentials: async () => KEYS });
      await storage.prepare([storage.root]);
    });
    it('with the bucket', async () => {
      expect(await prepare({ bucket: 'nobodys' })).toMatchObject({ code: 'STORAGE_NO_BUCKET', retryable: false });
    });
    it('with the endpoint', async () => {
      expect(await prepare({ endpoint: 'http://127.0.0.1:1' })).toMatchObject({ code: 'STORAGE_UNREACHABLE', retryable: true });
      expect(await prepare({ endpoint: proxy.endpoint.replace('http', 'https') })).toMatchObject({ code: 'STORAGE_UNREACHABLE', retryable: false });
    });
    it('with the clock, unless the difference can be taken into account', async () => {
      const off = { now: () => Date.now() - 5 * 3_600_000, random: () => 0, wait: async () => {} };
      const storage = new S3Storage({ ...quick, endpoint: proxy.endpoint, bucket: server.bucket, prefix: 'clock' }, {}, off);
      await storage.prepare([storage.root]);
      proxy.decide = () => ({ status: 403, code: 'RequestTimeTooSkewed', headers: { date: new Date().toUTCString() } });
      expect(await rejection(storage.prepare([storage.root]))).toMatchObject({ code: 'STORAGE_CLOCK_SKEW', retryable: false });
    });
  });
});

describe('the options of S3', () => {
  it('take no smaller parts than S3 does', () => {
    expect(() => s3({ bucket: 'b', partBytes: 1000 })).toThrow(expect.objectContaining({ code: 'OPTION_INVALID' }));
  });

  for (const options of [
    { bucket: 's3://x' },
    { bucket: '' },
    { bucket: 'b', retries: -1 },
    { bucket: 'b', endpoint: 'minio:9000' },
    { bucket: 'b', timeout: 0 },
  ])
    it(`${JSON.stringify(options)} are refused`, () => {
      expect(() => new S3Storage(options, {})).toThrow(expect.objectContaining({ code: 'OPTION_INVALID' }));
    });

  it('that are left out come from the environment', () => {
    const storage = new S3Storage({ bucket: 'b', prefix: '/deep/er/' }, { AWS_REGION: 'eu-west-1', AWS_ENDPOINT_URL: 'http://127.0.0.1:1' });
    expect(storage.root).toBe('s3://b/deep/er');
  });
});
