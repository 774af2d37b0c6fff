// The command `ip` of iproute2, and what it says where a system does not let us make networks.

import { execFile } from 'node:child_process';

/** What a system says that has no namespaces for us; anything else that fails is a fault of ours. */
const REFUSALS = /not permitted|permission denied|not supported|unknown device type|read-only file system/i;

/** Networks of our own cannot be had. */
export class NamespacesRefused extends Error {
  readonly why: string;

  constructor(why: string) {
    super(`There are no network namespaces: ${why}.`);
    this.why = why;
  }
}

/** What it prints. With `lines` each of them is a command (`-batch`). */
export function ip(args: readonly string[], lines?: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = execFile('ip', lines === undefined ? args : [...args, '-batch', '-'], (error, stdout, stderr) => {
      if (error === null) resolve(stdout);
      else reject(new Error(`ip ${args.join(' ')}: ${stderr.trim() || error.message}`, { cause: error }));
    });
    // Where there is no such command there is no one who reads; the callback says so.
    child.stdin!.on('error', () => {});
    child.stdin!.end(lines?.map((line) => `${line}\n`).join(''));
  });
}

/** The error as a refusal where it is one. */
export function refusalIn(error: unknown): unknown {
  const { message, cause } = error as Error & { cause?: NodeJS.ErrnoException };
  if (cause?.code === 'ENOENT') return new NamespacesRefused('there is no command ip');
  return REFUSALS.test(message) ? new NamespacesRefused(message.split('\n')[0]!.replace(/\.$/, '')) : error;
}
