import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ROOT, type SourceFile, sourceFiles } from './source-tree.ts';

// Who may know whom. A folder may import itself and what stands behind it here, and `src/errors.ts`; what that may import is listed too, because
// imports go downward, however far.
const DOWNWARD: Record<string, readonly string[]> = {
  graph: [],
  time: [],
  runtime: ['graph', 'time'],
  operators: ['runtime', 'graph', 'time'],
  entities: ['runtime', 'graph', 'time'],
  connectors: ['runtime', 'graph', 'time'],
  api: ['graph', 'time'],
  storage: ['runtime', 'graph', 'time'],
  checkpoint: ['storage', 'runtime', 'graph', 'time'],
  execution: ['checkpoint', 'storage', 'runtime', 'graph', 'time'],
  // A composition root of its own: jobs run there with what a test decides.
  testing: ['execution', 'operators', 'api', 'checkpoint', 'storage', 'runtime', 'graph', 'time'],
  // Snapshots without a job that runs: operators are fed, jobs replayed.
  offline: ['execution', 'operators', 'api', 'checkpoint', 'storage', 'runtime', 'graph', 'time'],
  observe: ['execution', 'checkpoint', 'runtime', 'graph', 'time'],
  cluster: ['execution', 'checkpoint', 'runtime', 'graph', 'time'],
  cli: ['observe', 'cluster', 'execution', 'checkpoint', 'storage', 'runtime', 'graph', 'time'],
};

/** Files that stand outside of the folders: errors may be imported from everywhere in src; a composition root puts everything together, for a program and for a thread. */
const ERRORS = 'src/errors.ts';
const ROOTS = ['src/index.ts', 'src/thread-main.ts'];

// Imports that the table does not allow and that are right all the same, with the reason. One that is no longer needed is an error too.
const EXCEPTIONS: Record<string, string> = {
  'src/cluster/zookeeper/config-source.ts → src/connectors/formats.ts': 'a configuration is a source as connectors have them, with their formats',
  'src/cluster/zookeeper/zookeeper.ts → src/connectors/formats.ts': 'the same',
  'src/testing/simulated-host.ts → actors/testing.ts': 'the deterministic system of actors is what runs are simulated on',
  'src/time/generators.ts → src/graph/node.ts': 'the contract of watermark strategies belongs to the node that a user gives one to',
};

// Packages, by the folder that may import them. Everything may import Node's own.
const PACKAGES: Record<string, readonly string[]> = {
  actors: ['xstate'],
  'state-backends': ['level', 'msgpackr'],
  'src/api': ['xstate'],
  'src/entities': ['xstate'],
  'src/execution': ['xstate'],
  'src/checkpoint': ['level', 'msgpackr', 'xstate'],
  'src/runtime': ['msgpackr'],
  'src/cluster': ['msgpackr'],
  'src/testing': ['msgpackr'],
  'src/connectors': ['msgpackr'],
  'src/connectors/kafka': ['kafkajs', '@platformatic/kafka'],
  'src/cluster/zookeeper': ['node-zookeeper-client'],
  'src/connectors/redis': ['redis'],
  'src/connectors/postgres': ['pg'],
  'src/cli': ['commander', '@swc/wasm-typescript'],
};

const files = sourceFiles('src', 'actors', 'state-backends');
const folderOf = (path: string): string => path.split('/')[1]!;

function violation(file: SourceFile, imported: string): string | undefined {
  const [from] = file.path.split('/');
  const [to] = imported.split('/');
  if (from !== 'src') return from === to ? undefined : `${from}/ knows nothing of ${to}/`;
  if (to === 'actors' || to === 'state-backends') return imported === `${to}/index.ts` ? undefined : `src/ uses only the index.ts of ${to}/`;
  if (to !== 'src') return `src/ knows nothing of ${to}/`;
  if (imported === ERRORS || ROOTS.includes(file.path)) return undefined;
  if (ROOTS.includes(imported)) return 'nothing imports the composition root';
  if (file.path === ERRORS) return 'errors import nothing';
  const allowed = DOWNWARD[folderOf(file.path)];
  if (allowed === undefined) return `${folderOf(file.path)}/ is no folder of the architecture`;
  const target = folderOf(imported);
  return target === folderOf(file.path) || allowed.includes(target) ? undefined : `${folderOf(file.path)}/ may not know ${target}/`;
}

describe('imports', () => {
  it('go downward, and across folders only where the architecture says so', () => {
    const used = new Set<string>();
    const wrong: string[] = [];
    for (const file of files) {
      for (const imported of file.files) {
        const reason = violation(file, imported);
        if (reason === undefined) continue;
        const edge = `${file.path} → ${imported}`;
        if (edge in EXCEPTIONS) used.add(edge);
        else wrong.push(`${edge}: ${reason}`);
      }
    }
    expect(wrong).toEqual([]);
    expect([...used].sort()).toEqual(Object.keys(EXCEPTIONS).sort());
  });

  it('stay inside of the tree and name files that exist, with their ending', () => {
    const missing = files.flatMap((file) =>
      file.files.filter((path) => path.startsWith('..') || !path.endsWith('.ts') || !existsSync(join(ROOT, path))).map((path) => `${file.path} → ${path}`),
    );
    expect(missing).toEqual([]);
    expect(files.filter((file) => file.packages.includes('millrace')).map(({ path }) => path)).toEqual([]);
  });

  it('of packages are made only where they are allowed', () => {
    const wrong = files.flatMap((file) =>
      file.packages
        .filter((name) => name !== 'node' && !Object.entries(PACKAGES).some(([place, names]) => isIn(file.path, place) && names.includes(name)))
        .map((name) => `${file.path} → ${name}`),
    );
    expect(wrong).toEqual([]);
  });

  it('have no cycle between files', () => {
    const byPath = new Map(files.map((file) => [file.path, file]));
    const done = new Set<string>();
    const cycles: string[] = [];
    const visit = (path: string, trail: readonly string[]): void => {
      const again = trail.indexOf(path);
      if (again >= 0) {
        cycles.push([...trail.slice(again), path].join(' → '));
        return;
      }
      if (done.has(path)) return;
      for (const next of byPath.get(path)?.files ?? []) visit(next, [...trail, path]);
      done.add(path);
    };
    for (const { path } of files) visit(path, []);
    expect(cycles).toEqual([]);
  });
});

describe('files', () => {
  it('are named for what they are about', () => {
    const named = sourceFiles('src', 'actors', 'state-backends', 'test', 'docs').map(({ path }) => path);
    // A test may be about types.
    expect(named.filter((path) => !path.endsWith('.test.ts') && /(^|\/)(utils?|helpers?|common|types|misc)(\.|\/|$)/.test(path))).toEqual([]);
    expect(named.filter((path) => !/^[a-z0-9./-]+$/.test(path))).toEqual([]);
  });

  it('list what they export by name', () => {
    expect(files.filter(({ text }) => /^\s*export\s+\*/m.test(text)).map(({ path }) => path)).toEqual([]);
  });

  it('begin with a comment that says what they are', () => {
    expect(files.filter(({ text }) => !/^(#!.*\n)?(\/\/|\/\*)/.test(text)).map(({ path }) => path)).toEqual([]);
  });
});

function isIn(path: string, place: string): boolean {
  return path.startsWith(`${place}/`) || path === `${place}.ts`;
}
