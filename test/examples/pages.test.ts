import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import ts from 'typescript';
import { describe, expect, it } from 'vitest';
import { LONG } from '../long.ts';
import { ROOT } from '../rules/source-tree.ts';

// Every program on a page compiles as a module of its own, against the sources.
const PAGES = [
  'README.md',
  'docs/guide.md',
  'docs/windows.md',
  'docs/testing.md',
  'docs/time.md',
  'docs/async.md',
  'docs/processes.md',
  'docs/joins.md',
  'docs/inspection.md',
  'docs/state-processor.md',
  'docs/connector-kit.md',
  'docs/connectors-http.md',
  'docs/connectors-tcp.md',
  'docs/formats-records.md',
  'docs/zookeeper.md',
];
const programs = new Map<string, string>();
for (const page of PAGES) {
  const text = readFileSync(join(ROOT, page), 'utf8');
  for (const match of text.matchAll(/^```ts\n([\s\S]*?)^```$/gm)) {
    const line = text.slice(0, match.index).split('\n').length + 1;
    programs.set(join(ROOT, 'docs', `${page.replace(/\W/g, '-')}-line-${line}.ts`), `${match[1]}\nexport {};\n`);
  }
}

describe('the pages for users', () => {
  it.runIf(LONG)(
    'have programs that compile',
    () => {
      const { config } = ts.readConfigFile(join(ROOT, 'tsconfig.json'), ts.sys.readFile);
      const { options } = ts.parseJsonConfigFileContent({ ...config, include: [], files: [] }, ts.sys, ROOT);
      const host = ts.createCompilerHost(options);
      const { readFile, fileExists, getSourceFile } = host;
      host.fileExists = (path) => programs.has(path) || fileExists(path);
      host.readFile = (path) => programs.get(path) ?? readFile(path);
      host.getSourceFile = (path, languageVersion, ...rest) => {
        const text = programs.get(path);
        return text === undefined ? getSourceFile(path, languageVersion, ...rest) : ts.createSourceFile(path, text, languageVersion);
      };
      const program = ts.createProgram([...programs.keys()], options, host);
      const wrong = [...programs.keys()].flatMap((path) => {
        const file = program.getSourceFile(path)!;
        return [...program.getSyntacticDiagnostics(file), ...program.getSemanticDiagnostics(file)].map(
          ({ messageText, start }) =>
            `${path}:${start === undefined ? 0 : file.getLineAndCharacterOfPosition(start).line}: ${ts.flattenDiagnosticMessageText(messageText, '\n')}`,
        );
      });
      expect(wrong).toEqual([]);
      expect(programs.size).toBeGreaterThan(10);
    },
    120_000,
  );

  it('link to files that exist', () => {
    const missing = PAGES.flatMap((page) =>
      [...readFileSync(join(ROOT, page), 'utf8').matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g)]
        .map((match) => join(page, '..', match[1]!))
        .filter((path) => !ts.sys.fileExists(join(ROOT, path)))
        .map((path) => `${page}: ${path}`),
    );
    expect(missing).toEqual([]);
  });

  it('link to headings that exist', () => {
    for (const page of PAGES) {
      const text = readFileSync(join(ROOT, page), 'utf8');
      const headings = [...text.matchAll(/^#+ (.*)$/gm)].map((match) =>
        match[1]!
          .toLowerCase()
          .replace(/[^\w -]/g, '')
          .replaceAll(' ', '-'),
      );
      expect([...text.matchAll(/\]\(#([^)]*)\)/g)].map((match) => match[1]!).filter((anchor) => !headings.includes(anchor))).toEqual([]);
    }
  });
});
