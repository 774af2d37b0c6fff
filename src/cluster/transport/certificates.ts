// The certificates of a worker, which are files: read anew for every connection that is dialed, and looked at while it listens, so that they can be replaced
// without a restart. Connections that stand keep what they began with.
//
// Invariant C1: what cannot be used (a certificate whose key has not been replaced yet) is told once and changes nothing: the last good ones stay.

import { readFile } from 'node:fs/promises';
import { createSecureContext, type SecureContextOptions } from 'node:tls';
import { asError, MillraceError, messageOf } from '../../errors.ts';
import type { TlsOptions } from '../../graph/job.ts';

export type { TlsOptions };

export type Certificates = Required<Pick<SecureContextOptions, 'cert' | 'key' | 'ca'>> & Pick<SecureContextOptions, 'passphrase'>;

/** Throws OPTION_INVALID where a file cannot be read, or they do not fit together. */
export async function readCertificates({ cert, key, ca, passphrase }: TlsOptions): Promise<Certificates> {
  try {
    const [certificate, secret, authority] = await Promise.all([readFile(cert), readFile(key), readFile(ca)]);
    const read: Certificates = { cert: certificate, key: secret, ca: authority, ...(passphrase === undefined ? {} : { passphrase }) };
    createSecureContext(read);
    return read;
  } catch (cause) {
    throw new MillraceError('OPTION_INVALID', `The certificates in ${cert}, ${key} and ${ca} cannot be used: ${messageOf(cause)}.`, {
      todo: 'Name PEM files: a certificate, its private key, and the authority that signed those of all workers.',
      cause,
    });
  }
}

/** Looks at the files every now and then and gives what has changed to `changed`. Returns what ends it. */
export function watchCertificates(options: TlsOptions, first: Certificates, changed: (now: Certificates) => void, failed: (error: Error) => void): () => void {
  let last = print(first);
  let told: string | undefined;
  let looking = false;
  const look = async (): Promise<void> => {
    try {
      const now = await readCertificates(options);
      told = undefined;
      if (print(now) === last) return;
      last = print(now);
      changed(now);
    } catch (cause) {
      const error = asError(cause);
      if (error.message === told) return;
      told = error.message;
      failed(error);
    }
  };
  const timer = setInterval(() => {
    if (looking) return;
    looking = true;
    void look().finally(() => {
      looking = false;
    });
  }, options.reload ?? 60_000);
  timer.unref();
  return () => clearInterval(timer);
}

function print({ cert, key, ca }: Certificates): string {
  return [cert, key, ca].map(String).join('\0');
}
