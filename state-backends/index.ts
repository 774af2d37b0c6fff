// Keyed state and its snapshots: the backends, the contract they fulfil, and the formats they share.

export { ByteReader, ByteWriter } from './byte-writer.ts';
export type { BaseRef, Chain, DeltaRef, FileRef, Handle, LevelBaseRef, LinkedFileRef, RowsBaseRef } from './chain.ts';
export {
  at,
  chainOf,
  DELTAS_MAX,
  EMPTY_CHAIN,
  filesOf,
  filesOfBase,
  handleOf,
  overlong,
  renamed,
  wantBase,
  wantsBase,
  withBase,
  withDelta,
} from './chain.ts';
export { ChunkedLists } from './chunked-lists.ts';
export { copy, decode, decodeFrom, encode, encodeInto, extendCodec } from './codec.ts';
export type {
  Backend,
  Delta,
  Group,
  GroupedTable,
  HeldRow,
  Key,
  KeyGroupRange,
  KeyWalk,
  Link,
  LinkedFile,
  LinkedRows,
  Loaded,
  LoadedParts,
  Looking,
  NumberedTable,
  RegionOptions,
  RegionState,
  Row,
  SingleTable,
  StateBackend,
  StateStats,
  Sweep,
  TableFigures,
  TableOptions,
  TaskOptions,
  TaskState,
  TimerRow,
  TimerTable,
} from './contract.ts';
export { EventClock, type ExpiryClock, isExpired } from './expiry-clock.ts';
export { canonicalKey, defaultMaxParallelism, groupOf, hashKey, instanceOf, keyBytes, murmur3, rangeOf, readKey, sameKey, writeKey } from './keys.ts';
export type {
  AccumulatorState,
  Aggregating,
  AnyKind,
  BroadcastMap,
  Declared,
  Handles,
  ListState,
  MapState,
  ReadonlyBroadcastMap,
  StateKind,
  StateOptions,
  StateSpec,
  ValueState,
} from './kinds.ts';
export { aggregating, broadcastMap, declaredOf, list, map, reducing, splitList, unionList, value } from './kinds.ts';
export { Current } from './kinds-current.ts';
export { type BoundKinds, bindKinds } from './kinds-keyed.ts';
export { type BoundOperatorKinds, bindOperatorKinds, type OperatorPart } from './kinds-operator.ts';
export { type BoundWindowKinds, bindWindowKinds } from './kinds-windowed.ts';
export { type LevelOptions, level, SHARED_ATTEMPT } from './level.ts';
export { type Extent, type LinkedSource, OpenedBase, openLinked, rowsOfLinked } from './linked-rows.ts';
export { memory } from './memory.ts';
export { RowFileWriter, rewritten } from './rewrite.ts';
export type { Layout, RowKind, RowVisitor, TableHeader } from './row-file.ts';
export { KEY_TOMBSTONE, RowFileReader, releaseBlocks, TOMBSTONE, VALUE } from './row-file.ts';
export { STATE_CODES, StateError, type StateErrorCode } from './state-error.ts';
export { EXPIRING, versionFault } from './versions.ts';
