// Folders of jars: what a lock file names, byte by byte, in a cache outside the tree.
//
// Where a jar comes from: Maven's local repository (`MAVEN_REPO_LOCAL`, else ~/.m2/repository), or else Maven, which is asked for exactly the locked versions and knows
// by its own settings where to fetch them. `MILLRACE_CACHE` or else ~/.cache/millrace is the cache.
//
// Invariants:
//  A1  A folder in the cache is complete and was checked when it was made: it is put in its place by one rename. Its name holds the checksum of the lock file.
//  A2  Several processes may ask at once; one of them fetches, since Maven's local repository is not made for two. A lock whose holder is dead is taken over.

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const COPIER = 'org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies';
const FETCH_MS = 600_000;
/** Held by whoever runs Maven. */
export const FETCHING = 'maven.fetching';

interface Locked {
  readonly path: string;
  readonly sha256: string;
}

export type Found = { readonly folder: string } | { readonly missing: string };

export function cacheFolder(): string {
  return process.env.MILLRACE_CACHE ?? join(homedir(), '.cache', 'millrace');
}

/** Whether there is a Java to run them. */
export function javaMissing(): string | undefined {
  try {
    execFileSync('java', ['-version'], { stdio: 'ignore' });
    return undefined;
  } catch {
    return 'there is no Java';
  }
}

/** The folder with every jar of `<name>.lock.json` in this directory, or why there is none. */
export function jarsOf(name: string): Found {
  const text = readFileSync(fileURLToPath(new URL(`./${name}.lock.json`, import.meta.url)), 'utf8');
  const place = join(cacheFolder(), `${name}-${createHash('sha256').update(text).digest('hex').slice(0, 12)}`);
  if (existsSync(place)) return { folder: place };
  const java = javaMissing();
  if (java !== undefined) return { missing: java };
  return exclusively(FETCHING, () => {
    if (existsSync(place)) return { folder: place };
    const made = mkdtempSync(join(cacheFolder(), `${name}.part-`));
    try {
      const missing = fill(made, JSON.parse(text) as Locked[]);
      if (missing !== undefined) return { missing };
      renameSync(made, place);
      return { folder: place };
    } finally {
      rmSync(made, { recursive: true, force: true });
    }
  });
}

function fill(folder: string, locked: readonly Locked[]): string | undefined {
  const repository = process.env.MAVEN_REPO_LOCAL ?? join(homedir(), '.m2', 'repository');
  const absent: Locked[] = [];
  for (const jar of locked) {
    const local = join(repository, jar.path);
    if (existsSync(local) && checksumOf(local) === jar.sha256) copyFileSync(local, join(folder, basename(jar.path)));
    else absent.push(jar);
  }
  if (absent.length === 0) return undefined;
  const project = join(folder, 'pom.xml');
  writeFileSync(project, projectOf(absent));
  try {
    execFileSync('mvn', ['-q', '-B', '-f', project, COPIER, `-DoutputDirectory=${folder}`], { stdio: 'pipe', timeout: FETCH_MS });
  } catch (error) {
    const said = String((error as { stdout?: Buffer }).stdout ?? '')
      .split('\n')
      .find((line) => line.includes('ERROR'));
    return `Maven could not fetch its jars${said === undefined ? '' : ` (${said.slice(0, 300)})`}`;
  }
  rmSync(project);
  for (const jar of locked) {
    const path = join(folder, basename(jar.path));
    if (!existsSync(path)) return `Maven did not bring ${basename(jar.path)}`;
    const found = checksumOf(path);
    if (found !== jar.sha256) return `${basename(jar.path)} has the checksum ${found} and not ${jar.sha256}`;
  }
  const more = readdirSync(folder).filter((file) => !locked.some((jar) => basename(jar.path) === file));
  return more.length === 0 ? undefined : `Maven brought more than is locked: ${more.join(', ')}`;
}

/** group/with/dots/artifact/version/artifact-version[-classifier].jar, without what these depend on. */
function projectOf(jars: readonly Locked[]): string {
  const dependencies = jars.map(({ path }) => {
    const parts = path.split('/');
    const [artifact, version, file] = parts.slice(-3) as [string, string, string];
    const classifier = file.slice(`${artifact}-${version}`.length + 1, -'.jar'.length);
    return `<dependency><groupId>${parts.slice(0, -3).join('.')}</groupId><artifactId>${artifact}</artifactId><version>${version}</version>${
      classifier === '' ? '' : `<classifier>${classifier}</classifier>`
    }<exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions></dependency>`;
  });
  return `<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion><groupId>local</groupId><artifactId>jars</artifactId><version>1</version>
<packaging>pom</packaging><dependencies>${dependencies.join('\n')}</dependencies></project>\n`;
}

function checksumOf(path: string): string {
  return createHash('sha256').update(readFileSync(path)).digest('hex');
}

/** One process at a time; the others wait. */
export function exclusively<T>(name: string, work: () => T): T {
  const cache = cacheFolder();
  mkdirSync(cache, { recursive: true });
  const lock = join(cache, name);
  for (;;) {
    try {
      writeFileSync(lock, String(process.pid), { flag: 'wx' });
      break;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
    if (abandoned(lock)) rmSync(lock, { force: true });
    else Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200);
  }
  try {
    return work();
  } finally {
    rmSync(lock, { force: true });
  }
}

function abandoned(lock: string): boolean {
  try {
    const holder = Number(readFileSync(lock, 'utf8'));
    // Without its number the holder is about to write it, unless that was long ago.
    if (!(holder > 0)) return Date.now() - statSync(lock).mtimeMs > 10_000;
    process.kill(holder, 0);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH';
  }
}
