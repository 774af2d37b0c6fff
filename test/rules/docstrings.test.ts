// Docstrings of public names: each says what it is, functions and constants with an example that compiles against the sources and runs.
//
// An example is a program of its own. What the package exports, and `assert`, it has without importing; anything else of another package it imports.
// It runs in an empty folder, so it may write files, and it ends by itself.

import { mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as millrace from 'millrace';
import * as actors from 'millrace/actors';
import * as actorTesting from 'millrace/actors/testing';
import * as connectors from 'millrace/connectors';
import * as kafka from 'millrace/kafka';
import * as stateBackends from 'millrace/state-backends';
import * as storage from 'millrace/storage';
import * as testing from 'millrace/testing';
import * as zookeeper from 'millrace/zookeeper';
import ts from 'typescript';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import * as xstate from 'xstate';
import { ACTOR_ERROR_CODES } from '../../actors/errors.ts';
import { CODES } from '../../src/errors.ts';
import { STATE_CODES } from '../../state-backends/state-error.ts';
import { below, ROOT } from './source-tree.ts';

const ENTRIES = {
  millrace: 'src/index.ts',
  'millrace/connectors': 'src/connectors/index.ts',
  'millrace/kafka': 'src/connectors/kafka/index.ts',
  'millrace/zookeeper': 'src/cluster/zookeeper/index.ts',
  'millrace/actors': 'actors/index.ts',
  'millrace/actors/testing': 'actors/testing.ts',
  'millrace/state-backends': 'state-backends/index.ts',
  'millrace/storage': 'src/storage/index.ts',
  'millrace/testing': 'src/testing/index.ts',
} as const;
type Entry = keyof typeof ENTRIES;

/** Of the state backends, what programs use; the rest is the contract between backends and the engine. */
const STATE_FOR_PROGRAMS = new Set(['memory', 'level', 'LevelOptions', 'StateBackend', 'value', 'list', 'map', 'reducing', 'aggregating']);

/** Examples that do not run by themselves, with the reason. */
const NOT_RUN: Record<string, string> = {};

const MODULES: Record<string, unknown> = {
  millrace,
  'millrace/connectors': connectors,
  'millrace/kafka': kafka,
  'millrace/zookeeper': zookeeper,
  'millrace/actors': actors,
  'millrace/actors/testing': actorTesting,
  'millrace/state-backends': stateBackends,
  'millrace/storage': storage,
  'millrace/testing': testing,
  xstate,
};

const { options } = ts.parseJsonConfigFileContent(
  { ...ts.readConfigFile(join(ROOT, 'tsconfig.json'), ts.sys.readFile).config, include: [], files: [] },
  ts.sys,
  ROOT,
);

interface Documented {
  /** `millrace: job`, `millrace/connectors: files.source`. */
  readonly name: string;
  readonly entry: Entry;
  readonly runs: boolean;
  /** The text without stars; empty where there is none. */
  readonly text: string;
  readonly params: readonly string[];
  readonly place: string;
}

interface Example {
  readonly name: string;
  readonly entry: Entry;
  readonly code: string;
}

const sources = ts.createProgram(
  Object.values(ENTRIES).map((path) => join(ROOT, path)),
  options,
);
const checker = sources.getTypeChecker();
/** Where a name can be imported from, the entry that comes first winning, and whether it is a value. */
const exported = new Map<Entry, Map<string, boolean>>();
const documented: Documented[] = [];
const seen = new Set<ts.Symbol>();
for (const [entry, path] of Object.entries(ENTRIES) as [Entry, string][]) {
  const names = new Map<string, boolean>();
  exported.set(entry, names);
  for (const symbol of checker.getExportsOfModule(checker.getSymbolAtLocation(sources.getSourceFile(join(ROOT, path))!)!)) {
    const target = symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol;
    names.set(symbol.name, (target.flags & ts.SymbolFlags.Value) !== 0);
    // What two entries export is one thing.
    if (seen.has(target) || (entry === 'millrace/state-backends' && !STATE_FOR_PROGRAMS.has(symbol.name))) continue;
    seen.add(target);
    documented.push(describeName(entry, symbol.name, target.declarations ?? []));
    for (const member of functionsIn(target)) documented.push(describeName(entry, `${symbol.name}.${member.name.getText()}`, [member]));
  }
}

/** Of a constant that is an object of functions: those. */
function functionsIn(symbol: ts.Symbol): ts.PropertyAssignment[] {
  const { valueDeclaration: of } = symbol;
  if (of === undefined || !ts.isVariableDeclaration(of) || of.initializer === undefined || !ts.isObjectLiteralExpression(of.initializer)) return [];
  return of.initializer.properties.filter(ts.isPropertyAssignment).filter(({ initializer }) => ts.isFunctionLike(initializer));
}

function describeName(entry: Entry, name: string, declarations: readonly ts.Node[]): Documented {
  const comments = declarations.flatMap((declaration) => ts.getJSDocCommentsAndTags(declaration)).filter(ts.isJSDoc);
  const first = declarations[0]!;
  return {
    name: `${entry}: ${name}`,
    entry,
    runs: declarations.some((of) => ts.isFunctionDeclaration(of) || ts.isVariableDeclaration(of) || ts.isClassDeclaration(of) || ts.isPropertyAssignment(of)),
    text: comments.map((comment) => withoutStars(comment.getText())).join('\n'),
    params: declarations.flatMap(parametersOf),
    place: `${below(first.getSourceFile().fileName)}:${first.getSourceFile().getLineAndCharacterOfPosition(first.getStart()).line + 1}`,
  };
}

function parametersOf(declaration: ts.Node): string[] {
  const signatures = checker.getTypeAtLocation(declaration).getCallSignatures();
  return signatures.flatMap((signature) => signature.parameters.map((parameter) => parameter.name));
}

function withoutStars(comment: string): string {
  return comment
    .replace(/^\/\*\*/, '')
    .replace(/\*\/$/, '')
    .split('\n')
    .map((line) => line.replace(/^\s*\* ?/, '').trimEnd())
    .join('\n');
}

/** The blocks of a docstring: what stands before the first tag, then each tag with its text. */
function blocks(text: string): string[] {
  return text.split(/^(?=@[a-z]+)/m).map((block) => block.trim());
}

function examplesOf({ name, entry, text }: Documented): Example[] {
  const found = blocks(text).filter((block) => block.startsWith('@example'));
  return found.map((block, i) => ({ name: found.length === 1 ? name : `${name} (${i + 1})`, entry, code: block.slice('@example'.length).trim() }));
}

/** The example as a module: what it uses of the package is imported from the entry it belongs to, or from the first that has it. */
function moduleOf({ code, entry }: Example): string {
  const file = ts.createSourceFile('example.ts', code, ts.ScriptTarget.Latest, true);
  const own = new Set<string>();
  const used = new Set<string>();
  // `collect(array)` is the sink, `collect()` the aggregate.
  let collects: Entry = 'millrace';
  const visit = (node: ts.Node): void => {
    if (ts.isIdentifier(node)) {
      const { parent } = node;
      const declares = (ts.isVariableDeclaration(parent) || ts.isInterfaceDeclaration(parent) || ts.isImportSpecifier(parent)) && parent.name === node;
      const member = (ts.isPropertyAccessExpression(parent) || ts.isPropertyAssignment(parent) || ts.isPropertySignature(parent)) && parent.name === node;
      if (declares) own.add(node.text);
      else if (!member) used.add(node.text);
      if (node.text === 'collect' && ts.isCallExpression(parent) && parent.arguments.length > 0) collects = 'millrace/connectors';
    }
    ts.forEachChild(node, visit);
  };
  visit(file);
  const imports = [...used]
    .filter((name) => !own.has(name))
    .flatMap((name) => {
      const from = ([...(name === 'collect' ? [collects] : []), entry, ...exported.keys()] as Entry[]).find((candidate) => exported.get(candidate)!.has(name));
      return from === undefined ? [] : [`import { ${exported.get(from)!.get(name) ? '' : 'type '}${name} } from '${from}';`];
    });
  if (used.has('assert')) imports.push("import assert from 'node:assert/strict';");
  return `${imports.join(' ')}\n${code}\nexport {};\n`;
}

const examples = documented.flatMap(examplesOf);
const known: ReadonlySet<string> = new Set([...Object.keys(CODES), ...Object.keys(STATE_CODES), ...ACTOR_ERROR_CODES]);

describe('a docstring', () => {
  it('says of every public name what it is', () => {
    expect(documented.filter(({ text }) => !/^[A-Z0-9`«]/i.test(blocks(text)[0] ?? '')).map(({ name, place }) => `${name} (${place})`)).toEqual([]);
  });

  it('shows an example of every function, class and constant', () => {
    expect(documented.filter((of) => of.runs && examplesOf(of).length === 0).map(({ name, place }) => `${name} (${place})`)).toEqual([]);
  });

  it('names parameters that are there', () => {
    const wrong = documented.flatMap(({ name, text, params }) =>
      [...text.matchAll(/^@param (\w+)/gm)].filter((match) => !params.includes(match[1]!)).map((match) => `${name}: ${match[1]}`),
    );
    expect(wrong).toEqual([]);
  });

  it('names error codes that there are', () => {
    const wrong = documented.flatMap(({ name, text }) =>
      blocks(text)
        .filter((block) => block.startsWith('@throws'))
        .flatMap((block) => {
          const codes = block.match(/\b[A-Z]+(?:_[A-Z]+)+\b/g) ?? [];
          return codes.length === 0 ? [`${name}: no code`] : codes.filter((code) => !known.has(code)).map((code) => `${name}: ${code}`);
        }),
    );
    expect(wrong).toEqual([]);
  });
});

describe('the examples in docstrings', () => {
  it('compile against the sources', () => {
    const modules = new Map(examples.map((example) => [join(ROOT, 'test', 'docstrings', `${example.name.replace(/\W+/g, '-')}.ts`), moduleOf(example)]));
    expect(modules.size).toBe(examples.length);
    const host = ts.createCompilerHost(options);
    const { fileExists, readFile, getSourceFile } = host;
    host.fileExists = (path) => modules.has(path) || fileExists(path);
    host.readFile = (path) => modules.get(path) ?? readFile(path);
    host.getSourceFile = (path, version, ...rest) => {
      const text = modules.get(path);
      return text === undefined ? (sources.getSourceFile(path) ?? getSourceFile(path, version, ...rest)) : ts.createSourceFile(path, text, version);
    };
    const program = ts.createProgram([...modules.keys()], options, host);
    const wrong = [...modules.keys()].flatMap((path) => {
      const file = program.getSourceFile(path)!;
      return [...program.getSyntacticDiagnostics(file), ...program.getSemanticDiagnostics(file)].map(({ messageText, start }) => {
        const { line } = file.getLineAndCharacterOfPosition(start ?? 0);
        return `${below(path)}: ${ts.flattenDiagnosticMessageText(messageText, '\n')}: ${file.text.split('\n')[line]}`;
      });
    });
    expect(wrong).toEqual([]);
  }, 120_000);

  const home = process.cwd();
  let folder = '';
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'docstrings-'));
    process.chdir(folder);
  });
  afterAll(() => {
    process.chdir(home);
    rmSync(folder, { recursive: true, force: true });
  });

  const require = createRequire(import.meta.url);
  const load = (name: string): unknown => MODULES[name] ?? require(name);

  it.each(examples.filter(({ name }) => !(name in NOT_RUN)))('of $name runs', async (example) => {
    const { outputText } = ts.transpileModule(moduleOf(example), { compilerOptions: { ...options, module: ts.ModuleKind.CommonJS, esModuleInterop: true } });
    const AsyncFunction = (async () => {}).constructor as new (...source: string[]) => (require: typeof load, exports: object) => Promise<void>;
    await new AsyncFunction('require', 'exports', outputText)(load, {});
  });

  it('that do not run are there', () => {
    const names = examples.map(({ name }) => name);
    expect(Object.keys(NOT_RUN).filter((name) => !names.includes(name))).toEqual([]);
    expect(names.length).toBeGreaterThan(50);
  });
});
