// Outputs of a task: one for each outgoing edge, with a batch builder for each target task.
//
// Invariants:
//  O1  `add` never hands over: a unit's results leave after the unit (protocols 15). It raises `control.full` when a builder has reached BATCH_SIZE.
//  O2  Before an event leaves, everything added before it leaves.
//  O3  The key of a record is computed and hashed here, once.

import { canonicalKey, groupOf, hashKey, instanceOf } from '../../state-backends/index.ts';
import { MillraceError } from '../errors.ts';
import type { Key } from '../graph/job.ts';
import type { Exchange } from '../graph/node.ts';
import { BATCH_SIZE, type Batch, takeBatch } from './batch.ts';
import type { Channel, Event } from './channel.ts';
import { fresh } from './fresh.ts';
import { rejectThenable } from './handlers.ts';

/** What the generated loops look at between units. */
export interface Control {
  /** Something wants attention: a builder is full, a sink has enough. */
  full: boolean;
}

export interface Output {
  readonly add: (value: unknown, timestamp: number) => void;
  readonly channels: readonly Channel[];
  /** True where each target has credit. */
  readonly open: boolean;
  /** Hands over the builders that are full, or all. */
  flush(all: boolean): void;
  signal(event: Event): void;
  /** Remembers sizes at the beginning of a unit; `rollback` returns to them. */
  mark(): void;
  rollback(): void;
  readonly records: number;
}

interface Builders {
  readonly batches: Batch[];
  readonly control: Control;
}

/**
 * The key that a task hashed last. Where a record leaves by several keyed outputs it mostly has the same key in each: the first output writes it down, the
 * others look. Numbers are looked at everywhere: to compare two costs nothing, and keys often come several times in a row.
 */
export interface LastKey {
  key: Key;
  hash: number;
}

interface AddDependencies {
  readonly builders: Builders;
  readonly key: (value: unknown) => Key;
  readonly canonical: (key: Key) => Key;
  readonly hash: (key: Key) => number;
  readonly target: (hash: number) => number;
  readonly limit: number;
  readonly last: LastKey | undefined;
  readonly first: boolean;
  readonly partition: (value: unknown, instances: number) => number;
  readonly refuse: (target: unknown, instances: number) => never;
  readonly random: () => number;
}

/** Free of outside names: see fresh.ts. */
const addKeyedToOne = ({ builders, key, canonical, hash, limit, last, first }: AddDependencies) => {
  const { batches, control } = builders;
  const shared = last !== undefined;
  const looks = shared && !first;
  const held: LastKey = last ?? { key: '', hash: 0 };
  return (value: unknown, timestamp: number): void => {
    let k = key(value);
    if (typeof k === 'number') k = k === 0 ? 0 : k;
    else if (typeof k !== 'string') k = canonical(k);
    const batch = batches[0]!;
    const n = batch.size;
    if (n === batch.capacity) batch.grow();
    batch.values[n] = value;
    batch.timestamps[n] = timestamp;
    batch.keys[n] = k;
    let h: number;
    if (typeof k === 'number' ? k === held.key : looks && typeof k === 'string' && k === held.key) h = held.hash;
    else {
      h = hash(k);
      if (shared || typeof k === 'number') {
        held.key = k;
        held.hash = h;
      }
    }
    batch.hashes[n] = h;
    batch.size = n + 1;
    if (n + 1 >= limit) control.full = true;
  };
};

const addKeyed = ({ builders, key, canonical, hash, target, limit, last, first }: AddDependencies) => {
  const { batches, control } = builders;
  const shared = last !== undefined;
  const looks = shared && !first;
  const held: LastKey = last ?? { key: '', hash: 0 };
  return (value: unknown, timestamp: number): void => {
    let k = key(value);
    if (typeof k === 'number') k = k === 0 ? 0 : k;
    else if (typeof k !== 'string') k = canonical(k);
    let h: number;
    if (typeof k === 'number' ? k === held.key : looks && typeof k === 'string' && k === held.key) h = held.hash;
    else {
      h = hash(k);
      if (shared || typeof k === 'number') {
        held.key = k;
        held.hash = h;
      }
    }
    const batch = batches[target(h)]!;
    batch.addKeyed(value, timestamp, k, h);
    if (batch.size >= limit) control.full = true;
  };
};

const addToOne = ({ builders, limit }: AddDependencies) => {
  const { batches, control } = builders;
  return (value: unknown, timestamp: number): void => {
    const batch = batches[0]!;
    const n = batch.size;
    if (n === batch.capacity) batch.grow();
    batch.values[n] = value;
    batch.timestamps[n] = timestamp;
    batch.size = n + 1;
    if (n + 1 >= limit) control.full = true;
  };
};

const addInTurn = ({ builders, limit }: AddDependencies) => {
  const { batches, control } = builders;
  let next = 0;
  return (value: unknown, timestamp: number): void => {
    const batch = batches[next]!;
    next = next + 1 === batches.length ? 0 : next + 1;
    batch.add(value, timestamp);
    if (batch.size >= limit) control.full = true;
  };
};

const addToAll = ({ builders, limit }: AddDependencies) => {
  const { batches, control } = builders;
  return (value: unknown, timestamp: number): void => {
    for (let i = 0; i < batches.length; i++) {
      const batch = batches[i]!;
      batch.add(value, timestamp);
      if (batch.size >= limit) control.full = true;
    }
  };
};

const addAtRandom = ({ builders, limit, random }: AddDependencies) => {
  const { batches, control } = builders;
  return (value: unknown, timestamp: number): void => {
    const batch = batches[Math.floor(random() * batches.length)]!;
    batch.add(value, timestamp);
    if (batch.size >= limit) control.full = true;
  };
};

const addByFunction = ({ builders, limit, partition, refuse }: AddDependencies) => {
  const { batches, control } = builders;
  return (value: unknown, timestamp: number): void => {
    const target: unknown = partition(value, batches.length);
    const batch = (typeof target === 'number' ? batches[target] : undefined) ?? refuse(target, batches.length);
    batch.add(value, timestamp);
    if (batch.size >= limit) control.full = true;
  };
};

/** What adds a record, for each exchange. */
function adding(exchange: Exchange, targets: number): (dependencies: AddDependencies) => (value: unknown, timestamp: number) => void {
  if (exchange === 'hash') return targets === 1 ? addKeyedToOne : addKeyed;
  if (exchange === 'custom') return addByFunction;
  if (targets === 1) return addToOne;
  if (exchange === 'broadcast') return addToAll;
  return exchange === 'shuffle' ? addAtRandom : addInTurn;
}

export interface OutputOptions {
  readonly exchange: Exchange;
  readonly key: ((value: unknown) => Key) | undefined;
  readonly partition: ((value: unknown, instances: number) => number) | undefined;
  readonly random: () => number;
  /** One for each target task; a forward edge has one. */
  readonly channels: readonly Channel[];
  readonly maxParallelism: number;
  readonly control: Control;
  readonly name: string;
  /** The vertex that the key is for, named in errors. */
  readonly to: string;
  /** Shared by the keyed outputs of a task that has several; `first` for the first of them. */
  readonly last?: LastKey;
  readonly first?: boolean;
}

export function openOutput(options: OutputOptions): Output {
  const { exchange, channels, control, maxParallelism } = options;
  const keyed = exchange === 'hash';
  const batches = channels.map(() => takeBatch(keyed));
  const marks = new Array<number>(channels.length).fill(0);
  const targets = Int32Array.from({ length: maxParallelism }, (_, group) => instanceOf(group, channels.length, maxParallelism));
  let records = 0;
  const make = adding(exchange, channels.length);
  const add = fresh<AddDependencies, (value: unknown, timestamp: number) => void>(
    make,
    `output-${options.name}`,
  )({
    builders: { batches, control },
    key: options.key ?? (() => 0),
    canonical: (key) => keyFor(options.to, key),
    hash: hashKey,
    target: (hash) => targets[groupOf(hash, maxParallelism)]!,
    limit: BATCH_SIZE,
    last: options.last,
    first: options.first ?? false,
    partition: options.partition ?? (() => 0),
    random: options.random,
    refuse: (target, instances) => refusePartition(options.to, target, instances),
  });
  return {
    add,
    channels,
    get open() {
      for (let i = 0; i < channels.length; i++) if (!channels[i]!.open) return false;
      return true;
    },
    get records() {
      return records;
    },
    flush(all) {
      for (let i = 0; i < batches.length; i++) {
        const batch = batches[i]!;
        if (batch.size === 0 || (!all && batch.size < BATCH_SIZE)) continue;
        batches[i] = takeBatch(keyed);
        records += batch.size;
        channels[i]!.send(batch);
      }
    },
    signal(event) {
      this.flush(true);
      for (const channel of channels) channel.signal(event);
    },
    mark() {
      for (let i = 0; i < batches.length; i++) marks[i] = batches[i]!.size;
    },
    rollback() {
      for (let i = 0; i < batches.length; i++) batches[i]!.truncate(marks[i]!);
    },
  };
}

/** What a partition function gave for a record that goes to `to` names no instance. */
export function refusePartition(to: string, target: unknown, instances: number): never {
  rejectThenable(target, to);
  throw new MillraceError('PARTITION_INVALID', `The partition function in front of '${to}' gave ${shown(target)} for ${instances} instances.`, {
    uid: to,
    todo: 'It must give a whole number from 0 to instances − 1.',
  });
}

function keyFor(uid: string, key: unknown): Key {
  rejectThenable(key, uid);
  try {
    return canonicalKey(key);
  } catch (cause) {
    throw new MillraceError('KEY_UNSUPPORTED', `The key function for '${uid}' gave ${shown(key)}, which is no key.`, {
      uid,
      cause,
      todo: 'Keys are strings, numbers, bigints, booleans and arrays of these.',
    });
  }
}

function shown(value: unknown): string {
  try {
    return typeof value === 'object' ? JSON.stringify(value) : String(value);
  } catch {
    return Object.prototype.toString.call(value);
  }
}
