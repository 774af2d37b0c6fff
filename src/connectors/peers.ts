// Packages that a program installs itself, for the connectors and formats that need them (peerDependencies, optional): loaded when first used, never before.

import { MillraceError } from '../errors.ts';

/**
 * What `load` imports, which is that package: `peer('pg', () => import('pg'), 'postgres')`.
 * @throws PACKAGE_MISSING where it is not installed.
 */
export async function peer<M>(name: string, load: () => Promise<M>, user: string): Promise<M> {
  try {
    return await load();
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'ERR_MODULE_NOT_FOUND' || !String(cause).includes(`'${name}'`)) throw cause;
    throw new MillraceError('PACKAGE_MISSING', `'${user}' needs the package '${name}', which is not installed.`, { todo: `Run: npm install ${name}.`, cause });
  }
}
