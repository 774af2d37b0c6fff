// millrace/connectors: sources and sinks that need nothing but Node.

export { collect } from './collect.ts';
export { files } from './files.ts';
export type { FilesSinkOptions } from './files-sink.ts';
export type { FilesSourceOptions } from './files-source.ts';
export { print } from './print.ts';
