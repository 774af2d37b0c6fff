import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import * as millrace from 'millrace';
import * as connectors from 'millrace/connectors';
import ts from 'typescript';
import { describe, it } from 'vitest';
import { ROOT } from '../rules/source-tree.ts';

// Programs on these pages run; what they say comes out is what their assertions say.
const MODULES: Record<string, unknown> = { millrace, 'millrace/connectors': connectors, 'node:assert/strict': assert };
const AsyncFunction = (async () => {}).constructor as new (...parameters: string[]) => (...values: unknown[]) => Promise<unknown>;

for (const page of ['docs/time.md', 'docs/async.md']) {
  const text = readFileSync(join(ROOT, page), 'utf8');
  describe(page, () => {
    for (const match of text.matchAll(/^```ts\n([\s\S]*?)^```$/gm)) {
      it(`the program in line ${text.slice(0, match.index).split('\n').length + 1} runs`, async () => {
        const { outputText } = ts.transpileModule(match[1]!, {
          compilerOptions: { module: ts.ModuleKind.CommonJS, target: ts.ScriptTarget.ES2022, esModuleInterop: true },
        });
        await new AsyncFunction('require', 'exports', outputText)((name: string) => {
          assert.ok(name in MODULES, name);
          return MODULES[name];
        }, {});
      });
    }
  });
}
