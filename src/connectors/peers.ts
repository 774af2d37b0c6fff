// Packages that a program installs itself, for the connectors and formats that need them (peerDependencies, optional): loaded when first used, never before.

import { createRequire } from 'node:module';
import { MillraceError } from '../errors.ts';

const require = createRequire(import.meta.url);

/**
 * What `load` imports, which is that package: `peer('pg', () => import('pg'), 'postgres')`.
 * @throws PACKAGE_MISSING where it is not installed.
 */
export async function peer<M>(name: string, load: () => Promise<M>, user: string): Promise<M> {
  try {
    return await load();
  } catch (cause) {
    throw missing(name, user, cause);
  }
}

/**
 * The exports of a CommonJS package, at once: for formats, whose options are checked when they are made.
 * @throws PACKAGE_MISSING where it is not installed.
 */
export function peerNow<M>(name: string, user: string): M {
  try {
    return require(name) as M;
  } catch (cause) {
    throw missing(name, user, cause);
  }
}

function missing(name: string, user: string, cause: unknown): unknown {
  const { code } = cause as NodeJS.ErrnoException;
  if ((code !== 'ERR_MODULE_NOT_FOUND' && code !== 'MODULE_NOT_FOUND') || !String(cause).includes(`'${name}'`)) return cause;
  return new MillraceError('PACKAGE_MISSING', `'${user}' needs the package '${name}', which is not installed.`, { todo: `Run: npm install ${name}.`, cause });
}
