import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createServer, request } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ingress, job, type RunningJob, type RunOptions } from 'millrace';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { discoveryFolder } from '../../src/observe/discovery.ts';
import { readinessOf } from '../../src/observe/readiness.ts';
import { isLoopback, route } from '../../src/observe/requests.ts';
import { mayDo, standingOf, tokensOf } from '../../src/observe/tokens.ts';

let folder: string;
const started: RunningJob[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'millrace-door-'));
  vi.stubEnv('TMPDIR', folder);
});
afterEach(async () => {
  for (const running of started.splice(0)) await running.cancel().catch(() => {});
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true, force: true });
});

const waiting = () =>
  job(
    'waiting',
    (env) =>
      void env
        .source('in', ingress<number>())
        .keyBy((n) => n)
        .reduce('sum', (l, r) => l + r)
        .forEach('out', () => {}),
  );

async function start(options: RunOptions = {}): Promise<{ running: RunningJob; url: string }> {
  const running = await waiting().start({ control: {}, checkpoints: { directory: join(folder, 'checkpoints'), every: 3_600_000 }, ...options });
  started.push(running);
  return { running, url: (running as RunningJob & { controlUrl: string }).controlUrl };
}

interface Answer {
  readonly status: number;
  readonly body: Record<string, unknown>;
}

function ask(url: string, method = 'GET', headers: Record<string, string> = {}, body?: string): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const sent = request(url, { method, headers, agent: false }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (piece: string) => (text += piece));
      response.on('end', () => resolve({ status: response.statusCode!, body: JSON.parse(text) as Record<string, unknown> }));
    });
    sent.on('error', reject).end(body);
  });
}
/** Of a machine that does other things too. */
const PATIENT = { timeout: 60_000, interval: 10 };
const JSON_TYPE = { 'content-type': 'application/json' };

describe('the control door', () => {
  it('shows the job, its plan, tree, metrics and checkpoints', async () => {
    const { running, url } = await start();
    expect((await ask(`${url}/jobs`)).body).toEqual([{ id: running.id, name: 'waiting', status: 'running', startedAt: expect.any(Number), pid: process.pid }]);
    expect((await ask(`${url}/jobs/waiting`)).body).toMatchObject({ id: running.id, restoredFrom: null, plan: { vertices: [{ id: 'in' }, { id: 'sum' }] } });
    expect((await ask(`${url}/jobs/waiting/tree`)).body).toMatchObject({ children: [{ name: 'waiting', state: 'running' }] });
    expect((await ask(`${url}/jobs/waiting/metrics`)).body).toContainEqual({ name: 'recordsIn', labels: { job: 'waiting', task: 'sum-0' }, value: 0 });
    const taken = await ask(`${url}/jobs/waiting/checkpoint`, 'POST', JSON_TYPE);
    expect(taken).toMatchObject({ status: 200, body: { id: 1 } });
    expect((await ask(`${url}/jobs/waiting/checkpoints`)).body).toMatchObject([{ id: 1, path: taken.body.path }]);
  });

  it('stops the job, answers with its result, and closes with nothing left', async () => {
    const { running, url } = await start();
    expect(readdirSync(discoveryFolder())).toEqual([`${process.pid}-waiting.json`]);
    const { status, body } = await ask(`${url}/jobs/waiting/stop`, 'POST', JSON_TYPE, '{"drain": false}');
    expect({ status, body }).toMatchObject({ status: 200, body: { status: 'stopped', checkpoint: { id: 1 } } });
    expect((await running.finished).status).toBe('stopped');
    expect(readdirSync(discoveryFolder())).toEqual([]);
    await expect(ask(`${url}/jobs`)).rejects.toMatchObject({ code: 'ECONNREFUSED' });
    const again = await start();
    expect((await ask(`${again.url}/jobs/waiting`)).body).toMatchObject({ restoredFrom: { id: 1 } });
  });

  it('cancels the job', async () => {
    const { url } = await start();
    expect(await ask(`${url}/jobs/waiting/cancel`, 'POST', JSON_TYPE)).toMatchObject({ status: 200, body: { status: 'cancelled' } });
  });

  it.each<[what: string, path: string, method: string, headers: Record<string, string>, body: string | undefined, status: number, code: string]>([
    ['an unknown address', '/', 'GET', {}, undefined, 404, 'CONTROL_NOT_FOUND'],
    ['an unknown question', '/jobs/waiting/weather', 'GET', {}, undefined, 404, 'CONTROL_NOT_FOUND'],
    ['an address that is none', '/jobs/%zz', 'GET', {}, undefined, 404, 'CONTROL_NOT_FOUND'],
    ['another job', '/jobs/other/tree', 'GET', {}, undefined, 404, 'JOB_NOT_FOUND'],
    ['an act by GET', '/jobs/waiting/stop', 'GET', {}, undefined, 405, 'CONTROL_NOT_FOUND'],
    ['a question by POST', '/jobs/waiting/tree', 'POST', JSON_TYPE, undefined, 405, 'CONTROL_NOT_FOUND'],
    ['an act that a form of any page could send', '/jobs/waiting/stop', 'POST', { 'content-type': 'text/plain' }, '{}', 415, 'OPTION_INVALID'],
    ['an act without a type', '/jobs/waiting/cancel', 'POST', {}, undefined, 415, 'OPTION_INVALID'],
    [
      'an act that a browser marks as of another site',
      '/jobs/waiting/stop',
      'POST',
      { ...JSON_TYPE, 'sec-fetch-site': 'cross-site' },
      '{}',
      403,
      'CONTROL_UNAUTHORIZED',
    ],
    ['a look that a browser marks as of another site', '/jobs', 'GET', { 'sec-fetch-site': 'same-site' }, undefined, 403, 'CONTROL_UNAUTHORIZED'],
    ['a name that was made to point here', '/jobs', 'GET', { host: 'evil.example' }, undefined, 403, 'CONTROL_UNAUTHORIZED'],
    ['a body that is no JSON', '/jobs/waiting/stop', 'POST', JSON_TYPE, '{', 400, 'OPTION_INVALID'],
    ['a body that is no object', '/jobs/waiting/stop', 'POST', JSON_TYPE, '[]', 400, 'OPTION_INVALID'],
    ['drain that is no boolean', '/jobs/waiting/stop', 'POST', JSON_TYPE, '{"drain": 1}', 400, 'OPTION_INVALID'],
    ['a body beyond the limit', '/jobs/waiting/stop', 'POST', JSON_TYPE, `{"x": "${'x'.repeat(70_000)}"}`, 413, 'OPTION_INVALID'],
  ])('refuses %s with code, sentence and what to do, and the job goes on', async (_what, path, method, headers, body, status, code) => {
    const { running, url } = await start();
    const answer = await ask(url + path, method, headers, body);
    expect(answer).toEqual({
      status,
      body: { code, message: expect.stringMatching(/\.$/), todo: expect.stringMatching(/\.$/), retryable: expect.any(Boolean) },
    });
    expect(running.status).toBe('running');
  });

  it('answers no preflight with leave to come from elsewhere', async () => {
    const { url } = await start();
    expect((await ask(`${url}/jobs/waiting/stop`, 'OPTIONS', { origin: 'http://evil.example', 'access-control-request-method': 'POST' })).status).toBe(405);
  });

  it('lives on after bytes that are no request, and clients that go away', async () => {
    const { url } = await start();
    const { port } = new URL(url);
    for (const bytes of [
      'nonsense\r\n\r\n',
      'POST /jobs/waiting/stop HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{',
    ])
      await new Promise<void>((resolve) => {
        const socket = connect(Number(port), '127.0.0.1', () => socket.write(bytes, () => socket.destroy()));
        socket.on('close', () => resolve());
      });
    expect((await ask(`${url}/jobs`)).status).toBe(200);
  });

  it('wants its token, where it has one', async () => {
    const { url } = await start({ control: { token: 'right' } });
    expect(await ask(`${url}/jobs`)).toMatchObject({ status: 401, body: { code: 'CONTROL_UNAUTHORIZED' } });
    expect(await ask(`${url}/jobs`, 'GET', { authorization: 'Bearer wrong' })).toMatchObject({ status: 401 });
    expect(await ask(`${url}/jobs`, 'GET', { authorization: 'Bearer right' })).toMatchObject({ status: 200 });
  });

  it('lets a token that reads look, and not act; one that operates may do both', async () => {
    const { running, url } = await start({ control: { token: { read: 'looker', operate: 'driver' } } });
    const looks = ['', '/waiting', '/waiting/tree', '/waiting/checkpoints', '/waiting/metrics', '/waiting/state'];
    const acts = ['checkpoint', 'savepoint', 'rescale', 'stop', 'cancel'];
    for (const [token, look, act] of [
      [undefined, 401, 401],
      ['nobody', 401, 401],
      ['looker', 200, 403],
    ] as const) {
      const headers: Record<string, string> = token === undefined ? {} : { authorization: `Bearer ${token}` };
      for (const path of looks) expect([path, (await ask(`${url}/jobs${path}`, 'GET', headers)).status]).toEqual([path, look]);
      for (const what of acts) {
        const { status, body } = await ask(`${url}/jobs/waiting/${what}`, 'POST', { ...JSON_TYPE, ...headers }, '{}');
        expect([what, status, body.code]).toEqual([what, act, act === 403 ? 'CONTROL_FORBIDDEN' : 'CONTROL_UNAUTHORIZED']);
      }
    }
    expect(running.status).toBe('running');
    const driver = { authorization: 'Bearer driver' };
    for (const path of looks) expect((await ask(`${url}/jobs${path}`, 'GET', driver)).status).toBe(200);
    expect(await ask(`${url}/jobs/waiting/checkpoint`, 'POST', { ...JSON_TYPE, ...driver })).toMatchObject({ status: 200, body: { id: 1 } });
    expect(await ask(`${url}/jobs/waiting/cancel`, 'POST', { ...JSON_TYPE, ...driver })).toMatchObject({ status: 200 });
  });

  it('writes no token into the file by which its job is found', async () => {
    await start({ control: { token: { read: 'looker', operate: 'driver' } } });
    expect(readFileSync(join(discoveryFolder(), `${process.pid}-waiting.json`), 'utf8')).not.toMatch(/looker|driver/);
  });

  it('answers probes without a token, and tells them nothing of the job', async () => {
    const { url } = await start({ control: { token: 'right' } });
    expect(await ask(`${url}/health`)).toEqual({ status: 200, body: { status: 'ok' } });
    expect(await ask(`${url}/ready`)).toEqual({ status: 200, body: { ready: true, status: 'running' } });
    expect(await ask(`${url}/ready`, 'POST', JSON_TYPE)).toMatchObject({ status: 401 });
    expect(await ask(`${url}/ready`, 'POST', { ...JSON_TYPE, authorization: 'Bearer right' })).toMatchObject({ status: 405 });
    expect(await ask(`${url}/health/deep`)).toMatchObject({ status: 401 });
  });

  it('is not ready while the job starts, and while it restarts, and is healthy all the while', async () => {
    let open!: () => void;
    const opened = new Promise<void>((resolve) => {
      open = resolve;
    });
    let fail: (() => void) | undefined;
    const source = {
      bounded: false,
      splits: async () => ['only'],
      splitId: String,
      read: () => ({
        [Symbol.asyncIterator]: () => ({
          next: () =>
            new Promise<never>((_, reject) => {
              fail = () => reject(new Error('gone'));
            }),
        }),
      }),
    };
    const sink = {
      async open() {
        await opened;
        return { write() {}, flush: async () => {}, close: async () => {} };
      },
    };
    const port = await freePort();
    const starting = job('slow', (env) => void env.source('in', source).sink('out', sink)).start({
      control: { port },
      restarts: { max: 1, within: 60_000, backoff: { initial: 60_000, max: 60_000 } },
    });
    const url = `http://127.0.0.1:${port}`;
    await vi.waitFor(async () => expect(await ask(`${url}/ready`)).toEqual({ status: 503, body: readinessOf('starting') }), PATIENT);
    expect((await ask(`${url}/health`)).status).toBe(200);
    open();
    started.push(await starting);
    expect((await ask(`${url}/ready`)).status).toBe(200);
    await vi.waitFor(() => expect(fail).toBeDefined(), PATIENT);
    fail!();
    await vi.waitFor(async () => expect(await ask(`${url}/ready`)).toEqual({ status: 503, body: readinessOf('restarting') }), PATIENT);
    expect((await ask(`${url}/health`)).status).toBe(200);
  });

  it('says what the job could not do', async () => {
    const { url } = await start({ checkpoints: false });
    expect(await ask(`${url}/jobs/waiting/checkpoint`, 'POST', JSON_TYPE)).toMatchObject({ status: 409, body: { code: 'CHECKPOINTS_OFF', retryable: false } });
  });
});

describe('a start', () => {
  it('without the port it wants is refused, and nothing is left', async () => {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    await expect(waiting().start({ control: { port }, checkpoints: { directory: join(folder, 'checkpoints') } })).rejects.toMatchObject({
      code: 'PORT_IN_USE',
      retryable: true,
    });
    await new Promise((resolve) => server.close(resolve));
    expect(readdirSync(folder)).toEqual([]);
  });

  it.each([
    { port: 70_000 },
    { port: 1.5 },
    { host: '256.1.1.1', token: 'secret' },
    { token: '' },
    { token: {} },
    { token: { read: 'same', operate: 'same' } },
    { token: { read: 'two words' } },
  ])('with control %j is refused', async (control) => {
    await expect(waiting().start({ control })).rejects.toMatchObject({ code: 'OPTION_INVALID' });
  });

  it.each(['0.0.0.0', '::', '10.0.0.1', 'service.example'])('that opens the door on %s without a token is refused, and leaves nothing', async (host) => {
    await expect(waiting().start({ control: { host } })).rejects.toMatchObject({ code: 'OPTION_INVALID', message: expect.stringContaining('has no token') });
    expect(readdirSync(folder)).toEqual([]);
  });

  it('that opens it to others with a token listens there, for any name', async () => {
    const { url } = await start({ control: { host: '0.0.0.0', token: 'right' } });
    const named = { host: 'service.example', authorization: 'Bearer right' };
    expect((await ask(`${url}/jobs`, 'GET', named)).status).toBe(200);
    expect((await ask(`${url}/jobs`, 'GET', { host: 'service.example' })).status).toBe(401);
    expect((await ask(`${url}/ready`, 'GET', { host: 'service.example' })).status).toBe(200);
  });

  it('that fails closes the door', async () => {
    const held = await start();
    const { port } = new URL(held.url);
    await expect(start({ control: {} })).rejects.toMatchObject({ code: 'JOB_ALREADY_RUNNING' });
    expect(readdirSync(discoveryFolder()).filter((name) => !name.startsWith(`${process.pid}-waiting`))).toEqual([]);
    await held.running.cancel();
    // The port is free again.
    const server = createServer();
    await new Promise<void>((resolve, reject) => server.once('error', reject).listen(Number(port), '127.0.0.1', resolve));
    await new Promise((resolve) => server.close(resolve));
  });

  it('without control listens nowhere and still has a handler to mount', async () => {
    const running = await waiting().start();
    started.push(running);
    const server = createServer((incoming, response) => running.handler(incoming, response));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    // The service decides which names it answers to.
    expect(await ask(`http://127.0.0.1:${port}/jobs`, 'GET', { host: 'service.example' })).toMatchObject({ status: 200 });
    expect(await ask(`http://127.0.0.1:${port}/ready`, 'GET', { host: 'service.example' })).toEqual({ status: 200, body: readinessOf('running') });
    await running.cancel();
    expect((await ask(`http://127.0.0.1:${port}/jobs/waiting`)).body).toMatchObject({ status: 'cancelled' });
    expect(await ask(`http://127.0.0.1:${port}/ready`)).toEqual({ status: 503, body: readinessOf('cancelled') });
    expect(await ask(`http://127.0.0.1:${port}/health`)).toEqual({ status: 200, body: { status: 'ok' } });
    await new Promise((resolve) => server.close(resolve));
  });
});

describe('decisions', () => {
  it.each([
    ['GET', '/jobs', { kind: 'action', action: 'list', job: undefined }],
    ['GET', '/jobs/', { kind: 'action', action: 'list', job: undefined }],
    ['HEAD', '/jobs/a', { kind: 'action', action: 'show', job: 'a' }],
    ['GET', '/jobs/a/tree?x=1', { kind: 'action', action: 'tree', job: 'a' }],
    ['POST', '/jobs/a/stop', { kind: 'action', action: 'stop', job: 'a' }],
    ['DELETE', '/jobs/a', { kind: 'method', allowed: 'GET' }],
    ['GET', '/jobs/a/cancel', { kind: 'method', allowed: 'POST' }],
    ['GET', '/jobs/a/tree/b', { kind: 'unknown' }],
    ['GET', '//', { kind: 'unknown' }],
    ['GET', '/health', { kind: 'probe', probe: 'health' }],
    ['HEAD', '/ready/', { kind: 'probe', probe: 'ready' }],
    ['DELETE', '/ready', { kind: 'method', allowed: 'GET' }],
    ['GET', '/ready/jobs', { kind: 'unknown' }],
  ] as const)('%s %s', (method, url, expected) => {
    expect(route(method, url)).toEqual(expected);
  });

  it.each([
    ['localhost', true],
    ['LOCALHOST:80', true],
    ['127.0.0.1:8080', true],
    ['127.1.2.3', true],
    ['[::1]:80', true],
    ['', false],
    ['evil.example', false],
    ['127.0.0.1.evil.example', false],
    ['localhost.evil.example:80', false],
    ['0.0.0.0', false],
  ])('the host %s is this machine: %s', (host, expected) => {
    expect(isLoopback(host)).toBe(expected);
  });

  it.each([
    [undefined, undefined, 'operate'],
    ['all', undefined, 'stranger'],
    ['all', 'all', 'operate'],
    ['all', 'other', 'stranger'],
    [{ read: 'r', operate: 'o' }, 'r', 'read'],
    [{ read: 'r', operate: 'o' }, 'o', 'operate'],
    [{ read: 'r', operate: 'o' }, 'ro', 'stranger'],
    [{ operate: 'o' }, undefined, 'stranger'],
    [{ read: 'r' }, 'r', 'read'],
  ] as const)('with the tokens %j whoever gives %j is one who may %s', (tokens, given, standing) => {
    expect(standingOf(given, tokensOf(tokens))).toBe(standing);
  });

  it('who operates may look, and who reads may not act', () => {
    expect([mayDo('operate', 'read'), mayDo('operate', 'operate'), mayDo('read', 'read')]).toEqual([true, true, true]);
    expect([mayDo('read', 'operate'), mayDo('stranger', 'read')]).toEqual([false, false]);
  });

  it.each(['starting', 'restarting', 'stopping', 'finished', 'stopped', 'cancelled', 'failed'] as const)(
    'a job that is %s is not ready, and it is said why',
    (status) => {
      expect(readinessOf(status)).toEqual({ ready: false, status, why: expect.stringMatching(/^[A-Z].*\.$/) });
    },
  );
});

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
