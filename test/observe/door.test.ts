import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { createServer, request } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ingress, job, type RunningJob, type RunOptions } from 'millrace';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { discoveryFolder } from '../../src/observe/discovery.ts';
import { isLoopback, route } from '../../src/observe/requests.ts';

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

  it.each([{ port: 70_000 }, { port: 1.5 }, { host: '256.1.1.1' }])('with control %j is refused', async (control) => {
    await expect(waiting().start({ control })).rejects.toMatchObject({ code: 'OPTION_INVALID' });
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
    await running.cancel();
    expect((await ask(`http://127.0.0.1:${port}/jobs/waiting`)).body).toMatchObject({ status: 'cancelled' });
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
});
