// Makes a fresh clone ready: installs and builds what is missing or out of date, and says nothing when nothing is. Runs on Node alone, before
// anything is installed, so it imports nothing else. With `--build` (npm run build) it builds in any case.
//
// Installed: every package of package-lock.json (optional ones aside) stands in node_modules in that version. Built: dist is younger than every
// source and than this file. A build is made beside dist and put in its place as a whole, so that a process that uses dist never sees half of one.

import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const dist = join(root, 'dist');
const stamp = join(dist, '.built');
const lock = join(root, '.ensure.lock');

/** What went wrong, said in a sentence; thrown, so that nothing half done is left behind. */
class NotReady extends Error {}

try {
  ensure();
} catch (error) {
  if (!(error instanceof NotReady)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}

function ensure() {
  const [major] = process.versions.node.split('.').map(Number);
  if (major < 20) throw new NotReady(`Millrace needs Node 20 or newer; this is ${process.version}.`);
  const always = process.argv.includes('--build');
  if (!always && installed() && built()) return;
  const release = exclusively();
  try {
    if (!installed()) install();
    if (always || !built()) build();
  } finally {
    release();
  }
}

function installed() {
  try {
    const wanted = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')).packages;
    const present = JSON.parse(readFileSync(join(root, 'node_modules', '.package-lock.json'), 'utf8')).packages;
    return Object.entries(wanted).every(
      ([path, entry]) => path === '' || entry.optional === true || entry.devOptional === true || present[path]?.version === entry.version,
    );
  } catch {
    return false;
  }
}

function install() {
  say('Installing the dependencies …');
  if (npm('ci') === 0) return;
  // A registry that lacks the packages of other platforms makes npm take the lock file for incomplete. The versions are exact in any case.
  say('npm ci refused the lock file; trying npm install.');
  if (npm('install', '--no-save') !== 0) throw new NotReady('The dependencies could not be installed.');
}

function npm(...command) {
  const arguments_ = [...command, '--include=dev', '--no-audit', '--no-fund', '--loglevel=error'];
  const script = process.env.npm_execpath;
  if (script !== undefined && /npm-cli\.c?js$/.test(script)) return run(process.execPath, [script, ...arguments_]);
  return run('npm', arguments_, { shell: process.platform === 'win32' });
}

function built() {
  if (!existsSync(stamp)) return false;
  const since = statSync(stamp).mtimeMs;
  const files = ['package.json', 'package-lock.json', 'tsconfig.json', 'tsconfig.build.json', 'scripts/ensure.mjs'].map((name) => join(root, name));
  return [...files, ...['src', 'actors', 'state-backends'].map((name) => join(root, name))].every((path) => newest(path) < since);
}

/** Of the file, or of everything below the folder; the folders themselves tell of files that are gone. */
function newest(path) {
  const stat = statSync(path);
  if (!stat.isDirectory()) return stat.mtimeMs;
  return Math.max(stat.mtimeMs, ...readdirSync(path).map((name) => newest(join(path, name))));
}

function build() {
  say('Building …');
  // What a build that was killed has left.
  for (const name of readdirSync(root)) if (/^dist\.\d/.test(name)) rmSync(join(root, name), { recursive: true, force: true });
  const beside = join(root, `dist.${process.pid}`);
  const begun = new Date();
  try {
    const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
    if (run(process.execPath, [tsc, '-p', 'tsconfig.build.json', '--outDir', beside]) !== 0) throw new NotReady('The build failed.');
    // npx in a clone runs the file itself, and npm makes it executable only when it first meets it.
    chmodSync(join(beside, 'src', 'cli', 'main.js'), 0o755);
    // A source that changes while the build runs is younger than the stamp.
    writeFileSync(join(beside, '.built'), `${begun.toISOString()}\n`);
    utimesSync(join(beside, '.built'), begun, begun);
    const old = `${beside}.old`;
    if (existsSync(dist)) renameSync(dist, old);
    renameSync(beside, dist);
    rmSync(old, { recursive: true, force: true });
  } finally {
    rmSync(beside, { recursive: true, force: true });
  }
}

/** One process at a time; who comes second waits, and then mostly finds everything done. */
function exclusively() {
  for (;;) {
    try {
      mkdirSync(lock);
      writeFileSync(join(lock, 'pid'), String(process.pid));
      const release = () => rmSync(lock, { recursive: true, force: true });
      process.once('exit', release);
      return release;
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
    }
    if (abandoned()) rmSync(lock, { recursive: true, force: true });
    else Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 100);
  }
}

function abandoned() {
  try {
    const pid = Number(readFileSync(join(lock, 'pid'), 'utf8'));
    if (pid > 0) process.kill(pid, 0);
    // Without its number the holder is about to write it, unless that was long ago.
    else return Date.now() - statSync(lock).mtimeMs > 10_000;
    return false;
  } catch (error) {
    if (error.code === 'ESRCH') return true;
    return error.code === 'ENOENT' && existsSync(lock) && Date.now() - statSync(lock).mtimeMs > 10_000;
  }
}

function run(command, arguments_, options = {}) {
  const { status, error } = spawnSync(command, arguments_, { cwd: root, stdio: ['ignore', process.stderr, process.stderr], ...options });
  if (error !== undefined) throw new NotReady(`'${command}' cannot be run: ${error.message}.`);
  return status;
}

function say(sentence) {
  console.error(sentence);
}
