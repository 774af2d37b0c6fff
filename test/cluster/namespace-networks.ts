// Networks of network namespaces: each replica in one of its own, a link from each to each, and one from each to where this process and ZooKeeper are. A partition takes a
// link down, as a switch that fails or a cable that is drawn would, or makes one of the two mute, as a wrong route would: it hears the other one and cannot answer.
//
//      this process, ZooKeeper (R)
//        /         |          \
//   replica 0   replica 1   replica 2       a replica is an address, which each of its links has: a link leads from an address to an address,
//        \_________/\_________/             and the system makes and removes the route with it
//         \___________________/
//
// Invariants:
//  N1  Nothing of this system but what is made here is changed: no route, no firewall, no forwarding. The links that end outside of the namespaces carry our name.
//  N2  There is one way between any two, their link: nobody forwards.
//  N3  Names carry the id of this process, addresses come from it. What those that have died have left is removed before anything is made.
//  N4  What was spawned in a namespace runs as the process that `spawn` gives: `ip netns exec` becomes the program.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type Server } from 'node:net';
import { ip, NamespacesRefused, refusalIn } from './network-commands.ts';
import type { Networks, Place } from './networks.ts';

const NAME = /^millrace-(\d+)-/;
/** What is reserved for tests of networks, 198.18.0.0/15 (RFC 2544): nobody's machines are there. */
const FIRST = ((198 << 24) | (18 << 16)) >>> 0;
const ADDRESSES = 1 << 17;
/** For one set of networks: itself, R, and replicas. */
const BLOCK = 8;
const REPLICAS_MAX = BLOCK - 2;
const PORT = 7070;
/** For a first connection out of a namespace. */
const REACHED_MS = 10_000;

let opened = 0;

/** An end of a link: the namespace that it is in, undefined for none, and its name there. */
interface End {
  readonly namespace: string | undefined;
  readonly device: string;
  /** Whom it leads to. */
  readonly address: string;
}

interface NetworkLink {
  readonly one: End;
  readonly other: End;
}

export class NamespaceNetworks implements Networks {
  readonly how = 'in network namespaces; of two that were parted the link was taken down at either end, or one could not send to the other any more';
  readonly zookeeperHost: string;
  readonly #prefix: string;
  readonly #names: readonly string[];
  readonly #block: number;
  /** By the replicas that it joins, `pairOf`; that to R by its one replica. */
  readonly #links = new Map<string, NetworkLink>();
  /** What brings back what was parted: arguments of `ip`. */
  readonly #mending: (readonly string[])[] = [];
  readonly #children = new Set<ChildProcess>();

  /** Throws `NamespacesRefused` where the system does not allow it. */
  static async open(names: readonly string[]): Promise<NamespaceNetworks> {
    if (names.length > REPLICAS_MAX) throw new Error(`There are addresses for ${REPLICAS_MAX} replicas.`);
    let networks: NamespaceNetworks | undefined;
    try {
      await removeAbandoned();
      networks = new NamespaceNetworks(names, await freeBlock());
      await networks.#make();
      await networks.#reaches(names[0]!);
      return networks;
    } catch (error) {
      await networks?.close();
      throw refusalIn(error);
    }
  }

  private constructor(names: readonly string[], block: number) {
    opened += 1;
    this.#prefix = `${process.pid}-${opened}`;
    this.#names = names;
    this.#block = block;
    this.zookeeperHost = addressAt(block + 1);
  }

  async #make(): Promise<void> {
    for (const name of this.#names) await ip(['netns', 'add', this.#namespace(name)]);
    // By the namespace, what is to be done in it.
    const commands = new Map<string | undefined, string[]>([[undefined, []]]);
    for (const name of this.#names) commands.set(this.#namespace(name), ['link set lo up', `addr add ${this.#address(name)}/32 dev lo`]);
    const made: string[] = [];
    const link = (one: End, other: End): NetworkLink => {
      const within = (end: End): string => (end.namespace === undefined ? '' : ` netns ${end.namespace}`);
      made.push(`link add name ${one.device}${within(one)} type veth peer name ${other.device}${within(other)}`);
      commands.get(one.namespace)!.push(`addr add ${other.address} peer ${one.address}/32 dev ${one.device}`, `link set ${one.device} up`);
      commands.get(other.namespace)!.push(`addr add ${one.address} peer ${other.address}/32 dev ${other.device}`, `link set ${other.device} up`);
      return { one, other };
    };
    for (const [i, name] of this.#names.entries()) {
      const [namespace, address] = [this.#namespace(name), this.#address(name)];
      // At most 15 characters.
      const here = { namespace: undefined, device: `mr${this.#prefix}-${i}`, address };
      this.#links.set(name, link({ namespace, device: 'zookeeper', address: this.zookeeperHost }, here));
      for (const [j, other] of this.#names.slice(0, i).entries()) {
        const there = { namespace: this.#namespace(other), device: `to-${i}`, address };
        this.#links.set(pairOf(name, other), link({ namespace, device: `to-${j}`, address: this.#address(other) }, there));
      }
    }
    await ip([], made);
    for (const [namespace, lines] of commands) await ip(inside(namespace), lines);
  }

  /** That what listens here is reached from there: a firewall may be in between. */
  async #reaches(name: string): Promise<void> {
    const server: Server = createServer((socket) => socket.end());
    await new Promise<void>((resolve, reject) => server.once('error', reject).listen(0, this.zookeeperHost, resolve));
    try {
      const { port } = server.address() as { port: number };
      const dial = `require('net').connect({ host: '${this.zookeeperHost}', port: ${port}, timeout: ${REACHED_MS} }).on('timeout', () => process.exit(1)).resume()`;
      const [code] = await once(this.spawn(name, ['-e', dial]), 'exit');
      if (code !== 0) throw new NamespacesRefused('this system does not take connections that come out of them');
    } finally {
      server.close();
    }
  }

  async place(name: string, servers: readonly string[]): Promise<Place> {
    return { connect: servers.join(','), host: '0.0.0.0', port: PORT, advertise: `${this.#address(name)}:${PORT}` };
  }

  spawn(name: string, args: readonly string[]): ChildProcess {
    const child = spawn('ip', ['netns', 'exec', this.#namespace(name), process.execPath, ...args], { stdio: ['pipe', 'pipe', 'pipe'] });
    this.#children.add(child);
    child.once('exit', () => this.#children.delete(child));
    return child;
  }

  known(): void {}

  async part(one: string, other: string, random: () => number): Promise<void> {
    await this.#take(this.#links.get(pairOf(one, other))!, random);
  }

  async partFromZooKeeper(name: string, random: () => number): Promise<void> {
    await this.#take(this.#links.get(name)!, random);
  }

  /** Where a link is down there is no way to the other end any more; at the other end there is, and nothing comes over it. What happens at which end is drawn. */
  async #take({ one, other }: NetworkLink, random: () => number): Promise<void> {
    const { namespace, device, address } = random() < 0.5 ? one : other;
    const mute = ['to', address, 'blackhole', 'priority', '10'];
    // Where ZooKeeper is there are no rules of ours (N1).
    const isMute = random() < 0.5 && namespace !== undefined;
    this.#mending.push([...inside(namespace), ...(isMute ? ['rule', 'del', ...mute] : ['link', 'set', device, 'up'])]);
    await ip([...inside(namespace), ...(isMute ? ['rule', 'add', ...mute] : ['link', 'set', device, 'down'])]);
  }

  async mend(): Promise<void> {
    for (const command of this.#mending.splice(0)) await ip(command);
  }

  async close(): Promise<void> {
    await Promise.all(
      [...this.#children].map((child) => {
        const ended = once(child, 'exit');
        child.kill('SIGKILL');
        return ended;
      }),
    );
    // A link goes with a namespace some time later: those that end here are removed first.
    const devices = new Set((await ip(['-brief', 'link', 'show', 'type', 'veth'])).split('\n').map((line) => line.split(/[@ ]/)[0]));
    for (const { other } of this.#links.values()) if (other.namespace === undefined && devices.has(other.device)) await ip(['link', 'del', other.device]);
    for (const name of this.#names) await remove(this.#namespace(name));
  }

  #namespace(name: string): string {
    return `millrace-${this.#prefix}-${name}`;
  }

  #address(name: string): string {
    return addressAt(this.#block + 2 + this.#names.indexOf(name));
  }
}

function pairOf(one: string, other: string): string {
  return [one, other].sort().join(' ');
}

function inside(namespace: string | undefined): string[] {
  return namespace === undefined ? [] : ['-n', namespace];
}

function addressAt(offset: number): string {
  const address = FIRST + offset;
  return [24, 16, 8, 0].map((shift) => (address >>> shift) & 255).join('.');
}

/** The first address of those that this process takes: others that run now have taken other ones, as their ids are others, or are seen to have. */
async function freeBlock(): Promise<number> {
  const taken = new Set((await ip(['-oneline', '-4', 'addr', 'show'])).match(/\d+\.\d+\.\d+\.\d+/g));
  for (let block = process.pid * BLOCK; ; block += BLOCK) {
    const first = block % ADDRESSES;
    if (!Array.from({ length: BLOCK }, (_, i) => addressAt(first + i)).some((address) => taken.has(address))) return first;
  }
}

async function namespacesThere(): Promise<string[]> {
  return (await ip(['netns', 'list']))
    .split('\n')
    .map((line) => line.split(' ')[0]!)
    .filter((name) => NAME.test(name));
}

/** Of processes that have died without closing them, with what runs in them. */
async function removeAbandoned(): Promise<void> {
  for (const name of await namespacesThere()) {
    if (isAlive(Number(NAME.exec(name)![1]))) continue;
    await remove(name);
  }
}

async function remove(name: string): Promise<void> {
  try {
    for (const pid of (await ip(['netns', 'pids', name])).split('\n').filter((line) => line !== '')) kill(Number(pid), 'SIGKILL');
    await ip(['netns', 'del', name]);
  } catch (error) {
    // Somebody else may have removed it, or it was not made yet.
    if ((await namespacesThere()).includes(name)) throw error;
  }
}

function isAlive(pid: number): boolean {
  return kill(pid, 0);
}

/** Whether there was such a process. */
function kill(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    process.kill(pid, signal);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false;
    // It is there, and somebody else's.
    if ((error as NodeJS.ErrnoException).code === 'EPERM') return true;
    throw error;
  }
}
