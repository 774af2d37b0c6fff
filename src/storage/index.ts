// `millrace/storage`: where the bytes of checkpoints can lie.

export type { ByteRange, CheckpointStorage, StoredEntry, StoredFileWriter } from '../graph/storage.ts';
export { directory } from './directory.ts';
export { type S3Options, s3 } from './s3.ts';
export type { S3Checksum } from './s3-upload.ts';
export type { S3Credentials } from './signature.ts';
