import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as millrace from 'millrace';
import * as connectors from 'millrace/connectors';
import * as testing from 'millrace/testing';
import ts from 'typescript';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ROOT } from '../rules/source-tree.ts';

// Programs of these pages say themselves what they give: they are run as they stand.
const PAGES = ['docs/processes.md', 'docs/joins.md', 'docs/inspection.md', 'docs/state-processor.md', 'docs/connector-kit.md'];
const MODULES: Record<string, unknown> = { millrace, 'millrace/connectors': connectors, 'millrace/testing': testing };

const require = createRequire(import.meta.url);
const load = (name: string): unknown => MODULES[name] ?? require(name);

// Programs may write files.
const home = process.cwd();
let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'page-programs-'));
  process.chdir(folder);
});
afterEach(() => {
  process.chdir(home);
  rmSync(folder, { recursive: true, force: true });
});

describe.each(PAGES)('%s', (page) => {
  const text = readFileSync(join(ROOT, page), 'utf8');
  const programs = [...text.matchAll(/^```ts\n([\s\S]*?)^```$/gm)].map((match) => ({
    line: text.slice(0, match.index).split('\n').length + 1,
    source: match[1]!,
  }));

  it('has programs that check what they give', () => {
    expect(programs.length).toBeGreaterThan(0);
    expect(programs.filter(({ source }) => !source.includes('assert.'))).toEqual([]);
  });

  it.each(programs)('the program at line $line runs', async ({ source }) => {
    const { outputText } = ts.transpileModule(source, {
      compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.CommonJS, esModuleInterop: true },
    });
    const AsyncFunction = (async () => {}).constructor as new (...given: string[]) => (require: typeof load, exports: object) => Promise<void>;
    await new AsyncFunction('require', 'exports', outputText)(load, {});
  });
});
