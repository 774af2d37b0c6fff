import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import * as millrace from 'millrace';
import * as connectors from 'millrace/connectors';
import ts from 'typescript';
import { describe, expect, it, vi } from 'vitest';
import { ROOT } from '../rules/source-tree.ts';

const PAGE = 'docs/windows.md';
const programs = [...readFileSync(join(ROOT, PAGE), 'utf8').matchAll(/^```ts\n([\s\S]*?)^```$/gm)].map((match) => match[1]!);
const { options } = ts.parseJsonConfigFileContent(
  { ...ts.readConfigFile(join(ROOT, 'tsconfig.json'), ts.sys.readFile).config, include: [], files: [] },
  ts.sys,
  ROOT,
);
const require = createRequire(import.meta.url);
const MODULES: Record<string, unknown> = { millrace, 'millrace/connectors': connectors };

describe(`the programs of ${PAGE}`, () => {
  it('are there', () => expect(programs.length).toBeGreaterThan(4));

  it.each(programs.map((program, i) => [/job\('([^']+)'/.exec(program)?.[1] ?? `${i}`, program]))('%s runs and gives what it says', async (_name, program) => {
    const { outputText } = ts.transpileModule(program, { compilerOptions: { ...options, module: ts.ModuleKind.CommonJS, esModuleInterop: true } });
    const AsyncFunction = (async () => {}).constructor as new (...source: string[]) => (...given: unknown[]) => Promise<void>;
    vi.spyOn(console, 'log').mockImplementation(() => {});
    try {
      await new AsyncFunction('require', 'exports', outputText)((name: string): unknown => MODULES[name] ?? require(name), {});
    } finally {
      vi.restoreAllMocks();
    }
  });
});
