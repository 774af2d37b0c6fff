// A real S3 server for tests: S3Proxy, whose files lie in a folder, so that it can be killed and come back with all of them.
//
// It is one archive of Maven Central, fetched once by Maven into its own cache and compared with the checksum below, and runs on Java 17 or newer. Where it is not to be
// had the tests are left out, and that is said; with CI=true it is an error.

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { exclusively, FETCHING } from '../services/artifacts.ts';

const VERSION = '4.1.0';
const CLASSIFIER = 'jar-with-dependencies';
const SHA256 = 'a4d025969aaf796616ed4b1e2491d87d455ce84bb28cb9db086b2e6aaa68b48d';
const FETCHER = 'org.apache.maven.plugins:maven-dependency-plugin:3.8.1:get';

export const KEYS = { accessKeyId: 'someone', secretAccessKey: 'a secret' };

/** The path of the archive, or why there is none. */
function archive(): { readonly path: string } | { readonly missing: string } {
  const path = join(homedir(), '.m2', 'repository', 'org', 'gaul', 's3proxy', VERSION, `s3proxy-${VERSION}-${CLASSIFIER}.jar`);
  try {
    execFileSync('java', ['-version'], { stdio: 'ignore' });
  } catch {
    return { missing: 'there is no Java' };
  }
  if (!existsSync(path)) {
    try {
      exclusively(FETCHING, () => {
        execFileSync('mvn', ['-q', '-B', FETCHER, `-Dartifact=org.gaul:s3proxy:${VERSION}:jar:${CLASSIFIER}`, '-Dtransitive=false'], {
          stdio: 'ignore',
          timeout: 300_000,
        });
      });
    } catch {
      return { missing: 'Maven could not fetch it' };
    }
  }
  if (!existsSync(path)) return { missing: `Maven does not keep it at ${path}` };
  const found = createHash('sha256').update(readFileSync(path)).digest('hex');
  return found === SHA256 ? { path } : { missing: `${path} has the checksum ${found} and not ${SHA256}` };
}

const found = archive();
if ('missing' in found) {
  const said = `No S3 server (S3Proxy ${VERSION}): ${found.missing}.`;
  if (process.env.CI === 'true') throw new Error(said);
  console.warn(`${said} Its tests are left out.`);
}

/** For describe.skipIf. */
export const NO_SERVER = 'missing' in found;

const HALF_WRITTEN = /-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

export class S3Server {
  readonly endpoint: string;
  readonly bucket = 'checkpoints';
  readonly #folder: string;
  readonly #port: number;
  #process: ChildProcess | undefined;

  private constructor(folder: string, port: number) {
    this.#folder = folder;
    this.#port = port;
    this.endpoint = `http://127.0.0.1:${port}`;
  }

  static async start(): Promise<S3Server> {
    const folder = await mkdtemp(join(tmpdir(), 'millrace-s3-'));
    const server = new S3Server(folder, await freePort());
    await mkdir(join(folder, 'objects', server.bucket), { recursive: true });
    const settings = {
      's3proxy.authorization': 'aws-v4',
      's3proxy.endpoint': server.endpoint,
      's3proxy.identity': KEYS.accessKeyId,
      's3proxy.credential': KEYS.secretAccessKey,
      'jclouds.provider': 'filesystem-nio2',
      'jclouds.filesystem.basedir': join(folder, 'objects'),
    };
    await writeFile(
      join(folder, 'settings'),
      Object.entries(settings)
        .map((each) => each.join('='))
        .join('\n'),
    );
    await server.up();
    return server;
  }

  /** Again, after `kill`. */
  async up(): Promise<void> {
    const path = 'path' in found ? found.path : '';
    const flags = ['-XX:TieredStopAtLevel=1', '-XX:+UseSerialGC', '-Xmx256m', '-DLOG_LEVEL=off'];
    const child = spawn('java', [...flags, '-jar', path, '--properties', join(this.#folder, 'settings')], { stdio: ['ignore', 'ignore', 'inherit'] });
    this.#process = child;
    let ended = false;
    child.once('exit', () => {
      ended = true;
    });
    for (;;) {
      if (ended) throw new Error('The S3 server ended.');
      const answers = await fetch(this.endpoint).then(
        () => true,
        () => false,
      );
      if (answers) return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /**
   * By its process id, without a warning. What it was writing then lies beside the objects under their names and a UUID, and it would list it as another object; of a
   * request that has not been carried out S3 shows nothing.
   */
  async kill(): Promise<void> {
    const child = this.#process;
    this.#process = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const over = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await over;
    for (const name of await this.objects('')) if (HALF_WRITTEN.test(name)) await rm(join(this.#folder, 'objects', this.bucket, name));
  }

  async close(): Promise<void> {
    await this.kill();
    await rm(this.#folder, { recursive: true, force: true });
  }

  /** What lies in the bucket below a prefix, looked at behind the server's back. */
  async objects(prefix: string): Promise<string[]> {
    const root = join(this.#folder, 'objects', this.bucket, prefix);
    const there = await readdir(root, { recursive: true, withFileTypes: true }).catch(() => []);
    return there.flatMap((each) => (each.isFile() ? [join(each.parentPath ?? each.path, each.name).slice(root.length + 1)] : [])).sort();
  }

  get port(): number {
    return this.#port;
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer().on('error', reject);
    probe.listen(0, '127.0.0.1', () => {
      const { port } = probe.address() as { port: number };
      probe.close(() => resolve(port));
    });
  });
}
