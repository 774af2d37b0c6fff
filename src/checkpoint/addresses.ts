// Addresses of snapshots: paths of this machine, and URLs such as s3://bucket/folder/name. Pure.

import { basename, dirname, join, resolve } from 'node:path';

export function isUrl(address: string): boolean {
  // A single letter is a drive.
  return /^[a-z][a-z0-9+.-]+:\/\//i.test(address);
}

/** What is said by a user, as it holds from everywhere. */
export function absolute(address: string): string {
  return isUrl(address) ? address.replace(/\/+$/, '') : resolve(address);
}

export function below(folder: string, ...names: readonly string[]): string {
  return isUrl(folder) ? [folder.replace(/\/+$/, ''), ...names].join('/') : join(folder, ...names);
}

export function folderOf(address: string): string {
  return isUrl(address) ? address.replace(/\/+[^/]*$/, '') : dirname(address);
}

export function nameIn(address: string): string {
  return isUrl(address) ? address.slice(address.lastIndexOf('/') + 1) : basename(address);
}
