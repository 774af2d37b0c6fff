// The two halves of the files connector under one name.

import type { TransactionalSink } from '../graph/sink.ts';
import type { Source } from '../graph/source.ts';
import { type FilesSinkOptions, filesSink } from './files-sink.ts';
import { type FilesSourceOptions, filesSource } from './files-source.ts';

export const files = {
  source: <T>(options: FilesSourceOptions<T>): Source<T> => filesSource(options) as Source<T>,
  sink: <T>(options: FilesSinkOptions<T>): TransactionalSink<T> => filesSink(options) as TransactionalSink<T>,
};
