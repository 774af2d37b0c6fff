// The contract of checkpoint storage: where the bytes of checkpoints and savepoints lie, and what the engine may count on.
//
// What: files at addresses, written once, as a whole, and never changed. An address is a path, or a URL of a scheme that the storage knows; `<folder>/<name>` lies
// below the folder. A storage knows nothing of checkpoints: names, checksums, second copies and what may be removed are the engine's (checkpoint/storage.ts). What is
// complete is said by pointers that lie elsewhere, in the registry: data first, pointer second.
//
// Invariants; `storageConformance` of `millrace/testing` tries each:
//  K1  A file is there with all its bytes, or it is not there. Once `finish` has resolved it outlives a crash of the process and of the machine.
//  K2  Nothing is overwritten: of several writers at one address at most one finishes; another one's `create` or `finish` fails with the code EEXIST.
//  K3  What `abandon` has given up leaves nothing. What a killed process has left unfinished is listed as that, and `discard` removes it.
//  K4  Reading what is not there fails with the code ENOENT: at the first step of the iteration at the latest, and never as an empty file.
//  K5  `read` gives the bytes asked for, in order; fewer only where the file ends before. A fault in the middle is an error and never an end.
//  K6  Whoever asks after `finish`, `remove` or `discard` has resolved sees what it did.
//  K7  Removing what is not there is no error.
//  K8  What is given to `append` is not looked at any more once its promise has resolved.
//  K9  An error says truthfully whether trying again can help (`retryable`, and a code of docs/errors.md).

/** Bytes `from` … `to` − 1. */
export interface ByteRange {
  readonly from: number;
  readonly to: number;
}

/** A file that is being written: seen by nobody before `finish` has resolved. */
export interface StoredFileWriter {
  append(blocks: Iterable<Uint8Array>): Promise<void>;
  finish(): Promise<void>;
  /** Gives it up, also after a `finish` that failed. */
  abandon(): Promise<void>;
}

/** What lies in a folder: a file, a folder in it, or what a writer has begun and not finished. */
export interface StoredEntry {
  /** The last part of its address. */
  readonly name: string;
  readonly unfinished: boolean;
}

/**
 * Where the bytes of checkpoints lie: `directory()` and `s3()` of `millrace/storage`, or one of your own, which `storageConformance` of `millrace/testing` tries.
 * The invariants stand in docs/storage.md.
 */
export interface CheckpointStorage {
  /** `directory`, `s3`; for messages. */
  readonly kind: string;
  /** The folder in which every job has one of its name. */
  readonly root: string;
  /** What is written is compared with a checksum on its way: the engine then reads it back only where `verify` asks for it. */
  readonly checksummed: boolean;
  /** The address is one of this kind: savepoints and other checkpoints that are named so are read and written with it. */
  owns(address: string): boolean;
  /** Makes what must be there before files are written into these folders, and fails where that cannot be done. Called at each start. */
  prepare(folders: readonly string[]): Promise<void>;
  create(address: string): Promise<StoredFileWriter>;
  read(address: string, range?: ByteRange): AsyncIterable<Uint8Array>;
  find(address: string): Promise<'file' | 'folder' | undefined>;
  /** Nothing where there is no such folder. */
  list(folder: string): AsyncIterable<StoredEntry>;
  remove(address: string): Promise<void>;
  /** Whatever writers have begun at that address and not finished. */
  discard(address: string): Promise<void>;
  /** Makes a folder and those around it; false where it is there already. Of several callers one is told true. */
  makeFolder(address: string): Promise<boolean>;
  /** Where nothing lies in it. */
  removeFolder(address: string): Promise<void>;
  /** Brings in a file of another storage without its bytes coming through this process (a hard link, say); false where that is not possible. */
  adopt?(address: string, from: CheckpointStorage, source: string): Promise<boolean>;
}
