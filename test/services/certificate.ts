// The certificate that secured listeners of the tests show: for 127.0.0.1 and localhost, signed by itself, made once by Java's keytool and kept in the cache.

import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { cacheFolder } from './artifacts.ts';

const run = promisify(execFile);

export interface Certificate {
  /** PKCS 12, with the private key. */
  readonly keystore: string;
  readonly password: string;
  /** What a client has to trust, PEM. */
  readonly ca: string;
}

const PASSWORD = 'of-no-worth';

export async function certificate(): Promise<Certificate> {
  const place = join(cacheFolder(), 'certificate-1');
  if (!existsSync(place)) await make(place);
  return { keystore: join(place, 'keystore.p12'), password: PASSWORD, ca: readFileSync(join(place, 'ca.pem'), 'utf8') };
}

async function make(place: string): Promise<void> {
  mkdirSync(cacheFolder(), { recursive: true });
  const made = mkdtempSync(join(cacheFolder(), 'certificate-part-'));
  try {
    const store = ['-keystore', join(made, 'keystore.p12'), '-storetype', 'PKCS12', '-storepass', PASSWORD, '-alias', 'server'];
    const names = 'san=ip:127.0.0.1,dns:localhost';
    await run('keytool', ['-genkeypair', ...store, '-keyalg', 'RSA', '-keysize', '2048', '-validity', '3650', '-dname', 'CN=localhost', '-ext', names]);
    await run('keytool', ['-exportcert', ...store, '-rfc', '-file', join(made, 'ca.pem')]);
    try {
      renameSync(made, place);
    } catch (error) {
      // Another process was faster.
      if (!existsSync(place)) throw error;
    }
  } finally {
    rmSync(made, { recursive: true, force: true });
  }
}
