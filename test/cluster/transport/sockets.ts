// Two sockets that are connected, over loopback, and certificates of an authority of the tests.

import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { TlsOptions } from '../../../src/cluster/transport/certificates.ts';

const run = promisify(execFile);

export async function socketPair(): Promise<[Socket, Socket]> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const dialer = connect((server.address() as { port: number }).port, '127.0.0.1');
  const [[acceptor]] = await Promise.all([once(server, 'connection') as Promise<[Socket]>, once(dialer, 'connect')]);
  server.close();
  for (const socket of [dialer, acceptor]) socket.on('error', () => {});
  return [dialer, acceptor];
}

export interface Authority {
  /** A worker's certificate. */
  issue(name: string): Promise<TlsOptions>;
  remove(): void;
}

/** Undefined: there is no openssl here. */
export async function authority(): Promise<Authority | undefined> {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-authority-'));
  const at = (name: string): string => join(folder, name);
  const remove = (): void => rmSync(folder, { recursive: true, force: true });
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  try {
    await run('openssl', ['req', '-x509', ...key, '-keyout', at('ca.key'), '-out', at('ca.pem'), '-days', '30', '-subj', '/CN=millrace tests']);
  } catch (error) {
    remove();
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  return {
    remove,
    async issue(name) {
      await run('openssl', ['req', ...key, '-keyout', at(`${name}.key`), '-out', at(`${name}.csr`), '-subj', `/CN=${name}`]);
      const signed = ['-CA', at('ca.pem'), '-CAkey', at('ca.key'), '-CAcreateserial', '-days', '30'];
      await run('openssl', ['x509', '-req', '-in', at(`${name}.csr`), ...signed, '-out', at(`${name}.pem`)]);
      return { cert: at(`${name}.pem`), key: at(`${name}.key`), ca: at('ca.pem') };
    },
  };
}
