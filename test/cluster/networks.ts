// What stands between the replicas of a cluster in a test, and between them and ZooKeeper, and can be parted: network namespaces with links where the system allows them
// (namespace-networks.ts), doors and proxies on loopback where it does not (door-networks.ts).
//
// Who owns what: networks are made for replicas by name, and outlive their processes; a process that was spawned here is gone when they are closed. Which of the two they
// are is found out by trying, once, and said: what a run shows depends on it.

import type { ChildProcess } from 'node:child_process';
import { DoorNetworks } from './door-networks.ts';
import { NamespaceNetworks } from './namespace-networks.ts';
import { NamespacesRefused } from './network-commands.ts';

/** Where a replica is. */
export interface Place {
  /** How it reaches ZooKeeper. */
  readonly connect: string;
  /** Where it listens. */
  readonly host: string;
  readonly port: number;
  /** Where others reach it: `host:port`. */
  readonly advertise: string;
}

export interface Networks {
  /** In words, for a log. */
  readonly how: string;
  /** Where ZooKeeper is to listen. */
  readonly zookeeperHost: string;
  /** Of the replica with that name, with ZooKeeper at those addresses; the same each time. */
  place(name: string, servers: readonly string[]): Promise<Place>;
  /** Node, with those arguments, where that replica is. Its output is piped. */
  spawn(name: string, args: readonly string[]): ChildProcess;
  /** The worker with that id is in the process of that replica. */
  known(id: string, name: string): void;
  /** From neither to the other there is an answer any more, and nobody is told, until `mend`. `random` decides how, where there are several ways. */
  part(one: string, other: string, random: () => number): Promise<void>;
  partFromZooKeeper(name: string, random: () => number): Promise<void>;
  /** All that was parted. What still waits to be sent then is. */
  mend(): Promise<void>;
  /** With all processes that are left. Nothing stays behind. */
  close(): Promise<void>;
}

/** `doors`: do not even try. */
export async function networksOf(names: readonly string[], { doors = false } = {}): Promise<Networks> {
  if (doors) return new DoorNetworks('as that was asked for');
  try {
    return await NamespaceNetworks.open(names);
  } catch (error) {
    if (!(error instanceof NamespacesRefused)) throw error;
    console.warn(`${error.message} Networks are parted by doors and proxies instead.`);
    return new DoorNetworks(`as namespaces are not allowed here: ${error.why}`);
  }
}
