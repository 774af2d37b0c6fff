// Node's module hooks for `millrace run`; they run in Node's thread for hooks.
//
// What: on Node versions that cannot do it themselves, types are stripped from .ts and .mts files, keeping lines and columns. And a module that lies
// where no `millrace` is installed (a file in an empty folder) is given the one that runs it.

import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { transform } from '@swc/wasm-typescript';

/** Given to `register`. */
export interface HookData {
  readonly strip: boolean;
  /** A file of this package: `millrace` resolves from it to this package itself. */
  readonly self: string;
}

interface Resolved {
  url: string;
  format?: string | null;
  shortCircuit?: boolean;
}
interface Loaded {
  format: string | null | undefined;
  source?: unknown;
  shortCircuit?: boolean;
}
interface ResolveContext {
  parentURL?: string | undefined;
}

let data: HookData = { strip: false, self: '' };

export function initialize(given: HookData): void {
  data = given;
}

export async function resolve(
  specifier: string,
  context: ResolveContext,
  next: (specifier: string, context: ResolveContext) => Promise<Resolved>,
): Promise<Resolved> {
  try {
    return await next(specifier, context);
  } catch (error) {
    if (!/^millrace(\/|$)/.test(specifier) || (error as NodeJS.ErrnoException).code !== 'ERR_MODULE_NOT_FOUND') throw error;
    return next(specifier, { ...context, parentURL: data.self });
  }
}

export async function load(url: string, context: object, next: (url: string, context: object) => Promise<Loaded>): Promise<Loaded> {
  if (!data.strip || !/^file:.*\.m?ts(\?|#|$)/.test(url)) return next(url, context);
  const path = fileURLToPath(url);
  try {
    const { code } = await transform(await readFile(path, 'utf8'), { mode: 'strip-only', module: true, filename: path });
    return { format: 'module', source: code, shortCircuit: true };
  } catch (error) {
    throw stripFailure(error, path);
  }
}

/** The stripper throws a plain object, and draws the place over several lines. */
function stripFailure(error: unknown, path: string): unknown {
  if (error instanceof Error) return error;
  const { message, startLine, filename } = (error ?? {}) as { message?: unknown; startLine?: number; filename?: string };
  return new SyntaxError(`${typeof message === 'string' ? message : String(error)} (${filename ?? path}${startLine === undefined ? '' : `:${startLine}`})`);
}
