// millrace/connectors: sources and sinks; those of databases load their package when they connect.

export { collect } from './collect.ts';
export { files } from './files.ts';
export type { FilesSinkOptions } from './files-sink.ts';
export type { FilesSourceOptions } from './files-source.ts';
export type { Lookup, LookupCache } from './lookup.ts';
export type { PostgresLookupOptions } from './postgres/lookup.ts';
export type { PostgresNotificationsOptions } from './postgres/notifications.ts';
export { postgres } from './postgres/postgres.ts';
export type { PostgresRowsOptions, PostgresSinkOptions } from './postgres/sink.ts';
export type { PostgresSourceOptions } from './postgres/source.ts';
export { print } from './print.ts';
