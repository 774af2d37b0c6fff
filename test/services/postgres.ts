// Real PostgreSQL servers for tests, of the system's installation.
//
// `postgresForTests()` is the one that all test files of a run share (shared.ts), whose tables have random names; `POSTGRES_URL` names an existing one instead.
// PostgreSQL refuses to run as root: then it runs as `postgres` or `nobody`.
//
// A server process of PostgreSQL leaves the group of the first: those that are left behind by a kill end by themselves, and a new start waits for that.

import { execFileSync } from 'node:child_process';
import { chownSync, existsSync, readdirSync } from 'node:fs';
import { connect } from 'node:net';
import { delimiter, join } from 'node:path';
import { removeFolder, serverFolder } from './folders.ts';
import { notHad } from './not-had.ts';
import { freePorts } from './ports.ts';
import { Server, Service } from './server.ts';
import { type Held, shared } from './shared.ts';

const PACKAGED = '/usr/lib/postgresql';
const USER = 'millrace';

/** The folder of `initdb` and `postgres`: the newest that Debian installed, or one of the path. */
function binaries(): string | undefined {
  const versions = existsSync(PACKAGED) ? readdirSync(PACKAGED).sort((a, b) => Number(b) - Number(a)) : [];
  const folders = [...versions.map((version) => join(PACKAGED, version, 'bin')), ...(process.env.PATH ?? '').split(delimiter)];
  return folders.find((folder) => existsSync(join(folder, 'initdb')) && existsSync(join(folder, 'postgres')));
}

const found = binaries();

/** For describe.skipIf. */
export const NO_POSTGRES = found === undefined && process.env.POSTGRES_URL === undefined;
if (NO_POSTGRES) notHad('PostgreSQL', 'there is no initdb');
/** For tests that kill it. */
export const NO_OWN_POSTGRES = found === undefined;

/** The shared server's address. */
export function postgresForTests(): Promise<string> {
  const existing = process.env.POSTGRES_URL;
  return existing === undefined ? shared('postgres', startShared) : Promise.resolve(existing);
}

/** Called in the process that holds the shared servers. */
export async function startShared(): Promise<Held<string>> {
  const server = await PostgresServer.start();
  return { value: server.url, close: () => server.close() };
}

export class PostgresServer extends Service {
  readonly url: string;

  private constructor(server: Server, port: number) {
    super(server);
    this.url = `postgres://${USER}@127.0.0.1:${port}/postgres`;
  }

  /** Resolves when it answers. `config` are settings of postgresql.conf. */
  static async start(config: Readonly<Record<string, string | number>> = {}): Promise<PostgresServer> {
    if (found === undefined) throw new Error('There is no PostgreSQL.');
    const [port] = await freePorts(1);
    const folder = await serverFolder('postgres');
    try {
      const owner = ownerOf(folder);
      const data = join(folder, 'data');
      const made = ['-D', data, '-U', USER, '--auth=trust', '--no-sync', '--encoding=UTF8', '--locale=C'];
      execFileSync(join(found, 'initdb'), made, { stdio: 'pipe', cwd: folder, ...owner });
      const settings = {
        port: port!,
        listen_addresses: '127.0.0.1',
        unix_socket_directories: '',
        fsync: 'off',
        shared_buffers: '32MB',
        max_connections: 60,
        ...config,
      };
      const server = new Server({
        name: 'PostgreSQL',
        folder,
        command: join(found, 'postgres'),
        args: ['-D', data, ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])],
        owner,
        // Ends its connections instead of waiting for them.
        stopSignal: 'SIGINT',
        answers: () => accepts(port!),
      });
      const postgres = new PostgresServer(server, port!);
      await postgres.up();
      return postgres;
    } catch (error) {
      await removeFolder(folder);
      throw error;
    }
  }

  /** SIGKILL of all its processes. */
  override async kill(): Promise<void> {
    const pids = this.#pids();
    await super.kill();
    this.#signal(pids, 'SIGKILL');
  }
  /** SIGSTOP of all its processes, until `resume`. */
  override pause(): void {
    super.pause();
    this.#signal(this.#pids(), 'SIGSTOP');
  }
  override resume(): void {
    this.#signal(this.#pids(), 'SIGCONT');
    super.resume();
  }
  /** Again, on the same port and data; resolves when it answers. */
  override async up(): Promise<void> {
    for (let tries = 0; ; tries++) {
      try {
        await super.up();
        return;
      } catch (error) {
        // A process of the killed one still holds the shared memory.
        if (tries === 50 || !String(error).includes('shared memory block')) throw error;
      }
    }
  }
  /** Killed, its data removed. */
  override async close(): Promise<void> {
    await this.kill();
    await super.close();
  }

  #pids(): number[] {
    const { pid } = this.server;
    if (pid === undefined) return [];
    try {
      return execFileSync('pgrep', ['-P', String(pid)], { encoding: 'utf8' })
        .trim()
        .split('\n')
        .map(Number);
    } catch {
      // pgrep says by its status that there are none.
      return [];
    }
  }

  #signal(pids: readonly number[], signal: NodeJS.Signals): void {
    for (const pid of pids) {
      try {
        process.kill(pid, signal);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
      }
    }
  }
}

/** For root: whose the folder becomes, and who runs the server. */
function ownerOf(folder: string): { uid: number; gid: number } | undefined {
  if (process.getuid?.() !== 0) return undefined;
  for (const user of ['postgres', 'nobody']) {
    try {
      const uid = Number(execFileSync('id', ['-u', user], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }));
      const gid = Number(execFileSync('id', ['-g', user], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }));
      chownSync(folder, uid, gid);
      return { uid, gid };
    } catch {
      // No such user.
    }
  }
  throw new Error('PostgreSQL does not run as root, and there is neither a user postgres nor nobody.');
}

/** A startup message (protocol 3.0); R: who we are is accepted. Starting up it says E. */
function accepts(port: number): Promise<boolean> {
  const named = Buffer.from(`user\0${USER}\0database\0postgres\0\0`);
  const head = Buffer.alloc(8);
  head.writeInt32BE(8 + named.length, 0);
  head.writeInt32BE(3 << 16, 4);
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(Buffer.concat([head, named])));
    socket.setTimeout(2000, () => socket.destroy(new Error('no answer')));
    socket.once('data', (bytes) => {
      resolve(bytes[0] === 'R'.charCodeAt(0));
      socket.destroy();
    });
    socket.once('error', reject);
    socket.once('close', () => reject(new Error('closed')));
  });
}
