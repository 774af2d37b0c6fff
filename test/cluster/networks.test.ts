// That the networks which the cluster's chaos parts are parted, and whole again: with processes that do nothing but ask each other.

import { type ChildProcess, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it } from 'vitest';
import { bundled } from '../bundled.ts';
import { NamespaceNetworks } from './namespace-networks.ts';
import { ip } from './network-commands.ts';
import { type Networks, networksOf } from './networks.ts';

const program = fileURLToPath(new URL('./networks-process.ts', import.meta.url));
const NAMES = ['one', 'two', 'three'];

const closing: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

interface Node {
  readonly address: string;
  readonly process: ChildProcess;
  tell(line: string): void;
  /** Resolves when it has said that so many times, from the beginning. */
  said(line: string, times?: number): Promise<void>;
  count(line: string): number;
}

async function begin(networks: Networks, name: string, servers: readonly string[]): Promise<Node> {
  const { host, port, advertise } = await networks.place(name, servers);
  const child = networks.spawn(name, [bundled(program), `id-of-${name}`, host, String(port)]);
  networks.known(`id-of-${name}`, name);
  const lines: string[] = [];
  const heard = new Set<() => void>();
  createInterface(child.stdout!).on('line', (line) => {
    lines.push(line);
    for (const hear of heard) hear();
  });
  const count = (line: string): number => lines.filter((each) => each === line).length;
  const node: Node = {
    address: advertise,
    process: child,
    count,
    tell: (line) => void child.stdin!.write(`${line}\n`),
    said: (line, times = 1) =>
      new Promise((resolve) => {
        const hear = (): void => {
          if (count(line) < times) return;
          heard.delete(hear);
          resolve();
        };
        heard.add(hear);
        hear();
      }),
  };
  await node.said('listens');
  return node;
}

/** A server where ZooKeeper would be: it answers each byte with one. */
async function server(networks: Networks): Promise<string> {
  const listening = createServer((socket) => socket.on('error', () => {}).on('data', () => socket.write('!')));
  await new Promise<void>((resolve) => listening.listen(0, networks.zookeeperHost, resolve));
  closing.push(async () => listening.close());
  return `${networks.zookeeperHost}:${(listening.address() as { port: number }).port}`;
}

describe.each(['namespaces', 'doors'] as const)('networks of %s', (kind) => {
  it('are parted between two, or between one and ZooKeeper, for nobody else, and what was sent meanwhile comes when they are mended', async (context) => {
    const networks = await networksOf(NAMES, { doors: kind === 'doors' });
    closing.push(() => networks.close());
    if (kind === 'namespaces' && !(networks instanceof NamespaceNetworks)) return context.skip();
    const zookeeper = await server(networks);
    const [one, two, three] = (await Promise.all(NAMES.map((name) => begin(networks, name, [zookeeper])))) as [Node, Node, Node];
    const placeOf = async (name: string): Promise<string> => (await networks.place(name, [zookeeper])).connect;
    const lines = {
      'one two': [one, two.address],
      'three two': [three, two.address],
      'one three': [one, three.address],
      'one zookeeper': [one, await placeOf('one')],
      'two zookeeper': [two, await placeOf('two')],
    } as const;
    let [asked, drawn] = [0, 0];
    const all = async (word: 'dial' | 'ask', except?: keyof typeof lines): Promise<void> => {
      asked += 1;
      // The one that shall get no answer asks first: the answers of the others are later.
      if (except !== undefined) lines[except][0].tell(`${word} ${lines[except][1]}`);
      for (const [name, [from, to]] of Object.entries(lines)) {
        if (name === except) continue;
        from.tell(`${word} ${to}`);
        await from.said(`answered ${to}`, asked);
      }
      if (except !== undefined) expect(lines[except][0].count(`answered ${lines[except][1]}`)).toBe(asked - 1);
    };
    await all('dial');
    // All that can be drawn.
    for (const draws of [
      [0, 0],
      [0, 0.9],
      [0.9, 0],
      [0.9, 0.9],
    ]) {
      const random = (): number => draws[drawn++ % 2]!;
      for (const [line, part] of [
        ['one two', () => networks.part('two', 'one', random)],
        ['one zookeeper', () => networks.partFromZooKeeper('one', random)],
      ] as const) {
        await part();
        await all('ask', line);
        await networks.mend();
        await lines[line][0].said(`answered ${lines[line][1]}`, asked);
        await all('dial');
      }
    }
  });
});

describe('network namespaces', () => {
  it('leave nothing behind, and remove what a process has left that was killed, and nothing of one that lives', async (context) => {
    const dead = spawnSync(process.execPath, ['-e', '']).pid;
    const probe = await networksOf(['one']);
    await probe.close();
    if (!(probe instanceof NamespaceNetworks)) return context.skip();
    const [abandoned, foreign] = [`millrace-${dead}-1-one`, `millrace-${process.ppid}-${process.pid}-test`];
    for (const name of [abandoned, foreign]) {
      await ip(['netns', 'add', name]);
      closing.push(() => ip(['netns', 'del', name]).catch(() => undefined));
    }
    const networks = await networksOf(['one', 'two']);
    closing.push(() => networks.close());
    const there = (await ip(['netns', 'list'])).split('\n').map((line) => line.split(' ')[0]);
    expect(there).not.toContain(abandoned);
    expect(there).toContain(foreign);
    const node = await begin(networks, 'two', []);
    const ended = once(node.process, 'exit');
    await networks.part('one', 'two', () => 0);
    await networks.close();
    expect(await ended).toEqual([null, 'SIGKILL']);
    expect(await ip(['netns', 'list'])).not.toContain(`millrace-${process.pid}-`);
    expect(await ip(['-brief', 'link', 'show'])).not.toContain(`mr${process.pid}-`);
    expect(await ip(['-4', 'addr', 'show'])).not.toContain(networks.zookeeperHost);
  });
});
