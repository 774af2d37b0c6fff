// node test/bundle.mjs <program.ts> <to.mjs>: the program with all that it imports of this package, as built, in one file; packages are left to node_modules. Beside it lies
// what went into it, with the times of those files.

import { mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { rolldown } from 'rolldown';

const [program, to] = process.argv.slice(2);
const root = fileURLToPath(new URL('..', import.meta.url));
const { name, exports } = JSON.parse(readFileSync(`${root}package.json`, 'utf8'));

const bundle = await rolldown({
  input: program,
  platform: 'node',
  // A module that asks whether it is the program itself is not, and what the package reads of itself lies at its root.
  transform: { define: { 'import.meta.url': JSON.stringify(pathToFileURL(`${root}bundled.mjs`).href) } },
  // As built, too, where a program imports a module of the package by its path: there is one copy of each.
  plugins: [
    {
      name: 'as-built',
      resolveId(source, importer) {
        const path = importer === undefined || !source.startsWith('.') ? '' : resolve(dirname(importer), source);
        const within = /^(src|actors|state-backends)\/.*\.ts$/.test(path.slice(root.length));
        return path.startsWith(root) && within ? `${root}dist/${path.slice(root.length, -2)}js` : null;
      },
    },
  ],
  external: (id) => /^[^./]/.test(id) && id !== name && !id.startsWith(`${name}/`),
  resolve: {
    alias: Object.fromEntries(
      Object.entries(exports).flatMap(([path, entry]) =>
        entry.default === undefined ? [] : [[`${name}${path.slice(1)}`, `${root}${entry.default.slice(2)}`]],
      ),
    ),
  },
});
const { output } = await bundle.generate({ format: 'esm', codeSplitting: false });
const inputs = output.flatMap(({ moduleIds = [] }) => moduleIds.filter((id) => id.startsWith('/')));

mkdirSync(dirname(to), { recursive: true });
// Others may make the same at the same time, and take what is there.
for (const [path, content] of [
  [to, output[0].code],
  [`${to}.json`, JSON.stringify(inputs.map((path) => [path, statSync(path).mtimeMs]))],
]) {
  writeFileSync(`${path}.${process.pid}`, content);
  renameSync(`${path}.${process.pid}`, path);
}
