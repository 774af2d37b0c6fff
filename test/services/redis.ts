// Real Redis servers for tests: `redis-server` of the system.
//
// `redisForTests()` is the one that all test files of a run share (shared.ts), whose keys have random names; `REDIS_URL` names an existing one instead. What was
// answered is on disk (appendonly, synced always), so that a killed server comes back with it.

import { execFileSync } from 'node:child_process';
import { connect } from 'node:net';
import { serverFolder } from './folders.ts';
import { notHad } from './not-had.ts';
import { freePorts } from './ports.ts';
import { Server, Service } from './server.ts';
import { type Held, shared } from './shared.ts';

const COMMAND = 'redis-server';

function missing(): boolean {
  try {
    execFileSync(COMMAND, ['--version'], { stdio: 'ignore' });
    return false;
  } catch {
    return true;
  }
}

const absent = missing();

/** For describe.skipIf. */
export const NO_REDIS = absent && process.env.REDIS_URL === undefined;
if (NO_REDIS) notHad('Redis', `there is no ${COMMAND}`);
/** For tests that kill it. */
export const NO_OWN_REDIS = absent;

/** The shared server's address. */
export function redisForTests(): Promise<string> {
  const existing = process.env.REDIS_URL;
  return existing === undefined ? shared('redis', startShared) : Promise.resolve(existing);
}

/** Called in the process that holds the shared servers. */
export async function startShared(): Promise<Held<string>> {
  const server = await RedisServer.start();
  return { value: server.url, close: () => server.close() };
}

export class RedisServer extends Service {
  readonly url: string;
  /** Its data, until it is closed. */
  readonly folder: string;

  private constructor(server: Server, port: number, folder: string) {
    super(server);
    this.folder = folder;
    this.url = `redis://127.0.0.1:${port}`;
  }

  /** Resolves when it answers. `config` are flags without their dashes. */
  static async start(config: Readonly<Record<string, string>> = {}): Promise<RedisServer> {
    const [port] = await freePorts(1);
    const folder = await serverFolder('redis');
    const flags = {
      port: String(port),
      bind: '127.0.0.1',
      dir: folder,
      daemonize: 'no',
      save: '',
      appendonly: 'yes',
      appendfsync: 'always',
      ...config,
    };
    const server = new Server({
      name: 'Redis',
      folder,
      command: COMMAND,
      args: Object.entries(flags).flatMap(([name, value]) => [`--${name}`, value]),
      answers: () => pings(port!),
    });
    const redis = new RedisServer(server, port!, folder);
    await redis.up();
    return redis;
  }
}

/** Any answer but that it is loading its data. */
function pings(port: number): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => socket.write('PING\r\n'));
    socket.setTimeout(2000, () => socket.destroy(new Error('no answer')));
    socket.once('data', (bytes) => {
      resolve(!bytes.toString().startsWith('-LOADING'));
      socket.destroy();
    });
    socket.once('error', reject);
    socket.once('close', () => reject(new Error('closed')));
  });
}
