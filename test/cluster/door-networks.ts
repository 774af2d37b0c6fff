// Networks on loopback: each replica behind a door of its own, and with a proxy of its own to each server of ZooKeeper.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { freePorts } from '../services/ports.ts';
import { Doors } from './doors.ts';
import type { Networks, Place } from './networks.ts';
import { TcpProxy } from './zookeeper/proxy.ts';

export class DoorNetworks implements Networks {
  readonly how: string;
  readonly zookeeperHost = '127.0.0.1';
  readonly #doors = new Doors();
  readonly #places = new Map<string, Place>();
  readonly #proxies = new Map<string, readonly TcpProxy[]>();
  readonly #children = new Set<ChildProcess>();

  constructor(why: string) {
    this.how = `behind doors and proxies on loopback, ${why}`;
  }

  async place(name: string, servers: readonly string[]): Promise<Place> {
    const before = this.#places.get(name);
    if (before !== undefined) return before;
    const [port] = await freePorts(1);
    const advertise = await this.#doors.open(name, port!);
    const proxies = await Promise.all(servers.map((server) => TcpProxy.start(server)));
    this.#proxies.set(name, proxies);
    const place = { connect: proxies.map(({ connect }) => connect).join(','), host: '127.0.0.1', port: port!, advertise };
    this.#places.set(name, place);
    return place;
  }

  spawn(_name: string, args: readonly string[]): ChildProcess {
    const child = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'pipe'] });
    this.#children.add(child);
    child.once('exit', () => this.#children.delete(child));
    return child;
  }

  known(id: string, name: string): void {
    this.#doors.known(id, name);
  }

  async part(one: string, other: string): Promise<void> {
    this.#doors.part(one, other);
  }

  async partFromZooKeeper(name: string): Promise<void> {
    for (const proxy of this.#proxies.get(name)!) proxy.stall();
  }

  async mend(): Promise<void> {
    this.#doors.mend();
    for (const proxy of [...this.#proxies.values()].flat()) proxy.mend();
  }

  async close(): Promise<void> {
    await Promise.all(
      [...this.#children].map((child) => {
        const ended = once(child, 'exit');
        child.kill('SIGKILL');
        return ended;
      }),
    );
    for (const proxy of [...this.#proxies.values()].flat()) proxy.close();
    this.#doors.close();
  }
}
