// A schema registry in this process, over HTTP: what of Confluent's protocol the client uses, with its status and error codes.

import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { onTestFinished } from 'vitest';

interface Stored {
  readonly id: number;
  readonly schema: string;
  readonly schemaType?: string;
  readonly references?: readonly { name: string; subject: string; version: number }[];
}

export interface RegistryServer {
  readonly url: string;
  /** `GET /schemas/ids/1` … in the order they came. */
  readonly requests: string[];
  /** Headers of the last request. */
  readonly headers: Record<string, unknown>;
  /** By subject, the oldest version first. */
  readonly subjects: Map<string, Stored[]>;
  add(subject: string, schema: string | object, options?: Pick<Stored, 'schemaType' | 'references'>): number;
  /** The next requests are answered so, or not at all ('hang up'). */
  fail(...answers: (number | 'hang up')[]): void;
  /** Refuses whoever has not these, as `user:password`. */
  wants(credentials: string): void;
}

export async function registryServer(): Promise<RegistryServer> {
  const subjects = new Map<string, Stored[]>();
  const requests: string[] = [];
  const headers: Record<string, unknown> = {};
  const failures: (number | 'hang up')[] = [];
  let credentials: string | undefined;
  let lastId = 0;
  const all = (): Stored[] => [...subjects.values()].flat();
  const store = (subject: string, given: Omit<Stored, 'id'>): number => {
    const same = all().find(({ schema, schemaType }) => schema === given.schema && schemaType === given.schemaType);
    const versions = subjects.get(subject) ?? [];
    subjects.set(subject, versions);
    if (same !== undefined && versions.includes(same)) return same.id;
    if (same === undefined) lastId += 1;
    versions.push({ ...given, id: same?.id ?? lastId });
    return same?.id ?? lastId;
  };
  const answer = (method: string, path: string, body: string): [number, object] => {
    const parts = path.split('/').slice(1).map(decodeURIComponent);
    if (parts[0] === 'schemas') {
      const found = all().find(({ id }) => id === Number(parts[2]));
      if (found === undefined) return [404, { error_code: 40403, message: 'Schema not found' }];
      const { id: _, ...rest } = found;
      return [200, rest];
    }
    const subject = parts[1]!;
    const versions = subjects.get(subject);
    const given = body === '' ? undefined : (JSON.parse(body) as Omit<Stored, 'id'>);
    if (method === 'POST' && parts[2] === 'versions') {
      if (given!.schema.includes('incompatible')) return [409, { error_code: 409, message: 'Schema being registered is incompatible' }];
      return [200, { id: store(subject, given!) }];
    }
    if (versions === undefined) return [404, { error_code: 40401, message: `Subject '${subject}' not found.` }];
    const found =
      method === 'POST' ? versions.find(({ schema }) => schema === given!.schema) : parts[3] === 'latest' ? versions.at(-1) : versions[Number(parts[3]) - 1];
    if (found === undefined) return [404, { error_code: 40402, message: 'Version not found.' }];
    return [200, { subject, version: versions.indexOf(found) + 1, ...found }];
  };
  const server = createServer((request, response) => {
    let body = '';
    request.setEncoding('utf8');
    request.on('data', (part: string) => {
      body += part;
    });
    request.on('end', () => {
      requests.push(`${request.method} ${request.url}`);
      Object.assign(headers, request.headers);
      const failure = failures.shift();
      if (failure === 'hang up') return void request.socket.destroy();
      const wanted = credentials === undefined ? undefined : `Basic ${Buffer.from(credentials).toString('base64')}`;
      const [status, content] =
        failure !== undefined
          ? [failure, { error_code: failure, message: 'it is broken' }]
          : wanted !== undefined && request.headers.authorization !== wanted
            ? [401, { error_code: 401, message: 'Unauthorized' }]
            : answer(request.method!, request.url!, body);
      response.writeHead(status, { 'content-type': 'application/vnd.schemaregistry.v1+json' }).end(JSON.stringify(content));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    headers,
    subjects,
    add: (subject, schema, options = {}) => store(subject, { schema: typeof schema === 'string' ? schema : JSON.stringify(schema), ...options }),
    fail: (...answers) => void failures.push(...answers),
    wants(given) {
      credentials = given;
    },
  };
}
