// millrace/connectors: sources and sinks; those of databases load their package when they connect.

export { collect } from './collect.ts';
export { files } from './files.ts';
export type { FilesSinkOptions } from './files-sink.ts';
export type { FilesSourceOptions } from './files-source.ts';
export { http } from './http.ts';
export type { HttpEventsOptions } from './http-events.ts';
export type { HttpRefusal, HttpSinkOptions } from './http-sink.ts';
export type { HttpSourceOptions } from './http-source.ts';
export type { ListeningAddress } from './listening.ts';
export type { Lookup, LookupCache } from './lookup.ts';
export type { PostgresLookupOptions } from './postgres/lookup.ts';
export type { PostgresNotificationsOptions } from './postgres/notifications.ts';
export { postgres } from './postgres/postgres.ts';
export type { PostgresRowsOptions, PostgresSinkOptions } from './postgres/sink.ts';
export type { PostgresSourceOptions } from './postgres/source.ts';
export { print } from './print.ts';
export type { RedisLookupOptions } from './redis/lookup.ts';
export { redis } from './redis/redis.ts';
export type { RedisHashesOptions, RedisKeysOptions, RedisSinkOptions } from './redis/sinks.ts';
export type { RedisEntry, RedisSourceOptions, RedisStreamsOptions } from './redis/source.ts';
export type { RedisStreamOptions } from './redis/stream-sink.ts';
export type { BodySignature } from './signed-body.ts';
export { tcp } from './tcp.ts';
export type { TcpAddress } from './tcp-connection.ts';
export type { TcpSinkOptions } from './tcp-sink.ts';
export type { TcpSourceOptions } from './tcp-source.ts';
