// Which storage an address belongs to: that of the job, where it is one of its kind; else what its scheme says, with credentials from the environment; a path means
// a directory of this machine.

import { MillraceError } from '../errors.ts';
import type { CheckpointStorage } from '../graph/storage.ts';
import type { Io } from '../runtime/io.ts';
import { DirectoryStorage } from '../storage/directory.ts';
import { s3At } from '../storage/s3.ts';
import { isUrl } from './addresses.ts';

export function storageOf(address: string, io: Io, own?: CheckpointStorage): CheckpointStorage {
  if (own?.owns(address) === true) return own;
  if (!isUrl(address)) return new DirectoryStorage('.', io);
  if (address.startsWith('s3://')) return s3At(address);
  throw new MillraceError('OPTION_INVALID', `There is no storage for ${address}.`, {
    todo: 'Write a path, s3://bucket/folder, or an address of the storage that the job has: checkpoints: { directory, storage }.',
  });
}
