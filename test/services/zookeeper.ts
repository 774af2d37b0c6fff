// Real ZooKeeper servers for tests: one alone, or an ensemble.
//
// `zookeeperForTests()` is the one that all test files of a run share (shared.ts); `ZOOKEEPER_CONNECT` names an existing one instead. Sessions from one second are
// possible (tickTime 500).

import { mkdir, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { jarsOf } from './artifacts.ts';
import { serverFolder } from './folders.ts';
import { notHad } from './not-had.ts';
import { freePorts } from './ports.ts';
import { Server, Service } from './server.ts';
import { type Held, shared } from './shared.ts';

const VERSION = '3.9.5';

const found = jarsOf(`zookeeper-${VERSION}`);

/** For describe.skipIf. */
export const NO_ZOOKEEPER = 'missing' in found && process.env.ZOOKEEPER_CONNECT === undefined;
if (NO_ZOOKEEPER && 'missing' in found) notHad(`ZooKeeper ${VERSION}`, found.missing);

/** `host:port` of the shared server. */
export function zookeeperForTests(): Promise<string> {
  const existing = process.env.ZOOKEEPER_CONNECT;
  return existing === undefined ? shared('zookeeper', startShared) : Promise.resolve(existing);
}

/** Called in the process that holds the shared servers. */
export async function startShared(): Promise<Held<string>> {
  const server = await ZooKeeperServer.start();
  return { value: server.connect, close: () => server.close() };
}

export interface ZooKeeperOptions {
  /** Where clients reach it; default 127.0.0.1. Servers of an ensemble reach each other on loopback wherever that is. */
  readonly host?: string;
  /** Lines of zoo.cfg, over the others. */
  readonly config?: Readonly<Record<string, string | number>>;
}

/** One server, alone or of a `ZooKeeperEnsemble`. */
export class ZooKeeperServer extends Service {
  /** `host:port`. */
  readonly connect: string;
  readonly #host: string;
  readonly #port: number;

  private constructor(server: Server, host: string, port: number) {
    super(server);
    this.#host = host;
    this.#port = port;
    this.connect = `${host}:${port}`;
  }

  /** Resolves when it answers. */
  static async start(options: ZooKeeperOptions = {}): Promise<ZooKeeperServer> {
    const [port] = await freePorts(1);
    const server = await ZooKeeperServer.configured(options, 1, port!, []);
    await server.up();
    return server;
  }

  /** As a member of an ensemble, whose lines are `members`. */
  static async configured(options: ZooKeeperOptions, id: number, port: number, members: readonly string[]): Promise<ZooKeeperServer> {
    if ('missing' in found) throw new Error(`There is no ZooKeeper ${VERSION}: ${found.missing}.`);
    const { host = '127.0.0.1' } = options;
    const folder = await serverFolder('zookeeper');
    const data = join(folder, 'data');
    await mkdir(data);
    await writeFile(join(data, 'myid'), String(id));
    const settings = {
      tickTime: 500,
      initLimit: 20,
      syncLimit: 10,
      dataDir: data,
      clientPort: port,
      clientPortAddress: host,
      maxClientCnxns: 0,
      'admin.enableServer': 'false',
      '4lw.commands.whitelist': 'ruok,srvr,stat,mntr,conf,cons,wchs',
      forceSync: 'no',
      preAllocSize: 1024,
      ...options.config,
    };
    const lines = [...Object.entries(settings).map((each) => each.join('=')), ...members];
    const path = join(folder, 'zoo.cfg');
    await writeFile(path, `${lines.join('\n')}\n`);
    const server = new Server({
      name: `ZooKeeper ${VERSION}`,
      folder,
      command: 'java',
      args: [
        ...['-Xms32m', '-Xmx192m', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-Xshare:auto'],
        '-Dzookeeper.maxCnxns=0',
        '-Dorg.slf4j.simpleLogger.showDateTime=true',
        `-Dorg.slf4j.simpleLogger.defaultLogLevel=${process.env.ZOOKEEPER_LOG ?? 'warn'}`,
        '-cp',
        join(found.folder, '*'),
        'org.apache.zookeeper.server.quorum.QuorumPeerMain',
        path,
      ],
      answers: async () => (await word(host, port, 'srvr')).includes('\nMode: '),
    });
    return new ZooKeeperServer(server, host, port);
  }

  /** What it is at present; undefined while it is not part of a working ensemble. */
  async mode(): Promise<'standalone' | 'leader' | 'follower' | undefined> {
    const said = /\nMode: (\w+)/.exec(await word(this.#host, this.#port, 'srvr'));
    return said?.[1] as 'standalone' | 'leader' | 'follower' | undefined;
  }
}

export class ZooKeeperEnsemble {
  readonly nodes: readonly ZooKeeperServer[];

  private constructor(nodes: readonly ZooKeeperServer[]) {
    this.nodes = nodes;
  }

  /** Every server, comma-separated. */
  get connect(): string {
    return this.nodes.map((node) => node.connect).join(',');
  }

  /** Resolves when each of them has its part in it. */
  static async start(options: ZooKeeperOptions & { readonly nodes?: number } = {}): Promise<ZooKeeperEnsemble> {
    const { nodes = 3 } = options;
    const ports = await freePorts(nodes * 3);
    const members = Array.from({ length: nodes }, (_, i) => `server.${i + 1}=127.0.0.1:${ports[i * 3 + 1]}:${ports[i * 3 + 2]}`);
    const servers: ZooKeeperServer[] = [];
    for (let i = 0; i < nodes; i++) servers.push(await ZooKeeperServer.configured(options, i + 1, ports[i * 3]!, members));
    const ensemble = new ZooKeeperEnsemble(servers);
    try {
      for (const server of servers) server.begin();
      await Promise.all(servers.map((server) => server.ready()));
    } catch (error) {
      await ensemble.close();
      throw error;
    }
    return ensemble;
  }

  async close(): Promise<void> {
    await Promise.all(this.nodes.map((node) => node.close()));
  }
}

/** What a four-letter word is answered. */
function word(host: string, port: number, said: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, host, () => socket.end(said));
    socket.setTimeout(2000, () => socket.destroy(new Error('no answer')));
    socket.setEncoding('utf8');
    let got = '';
    socket.on('data', (text) => {
      got += text;
    });
    socket.once('error', reject);
    socket.once('close', () => resolve(got));
  });
}
