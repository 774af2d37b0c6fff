// Folders of servers: made in the system's temporary folder, and removed by whoever made them, or by the lifeline.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { tell } from './lifeline.ts';

export async function serverFolder(name: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), `millrace-${name}-`));
  tell('made', folder);
  return folder;
}

export async function removeFolder(folder: string): Promise<void> {
  await rm(folder, { recursive: true, force: true });
  tell('removed', folder);
}
