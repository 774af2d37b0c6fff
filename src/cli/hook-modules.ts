// Node's hooks for modules of users (module-hooks.ts), in the thread that asks for them.

import { register } from 'node:module';
import type { HookData } from './module-hooks.ts';

const HOOKED = Symbol.for('millrace.hooked');

export function hookModules(): void {
  const { typescript } = process.features as { typescript?: string | false };
  const data: HookData = { strip: typescript === undefined || typescript === false, self: import.meta.url };
  register(import.meta.url.endsWith('.ts') ? './module-hooks.ts' : './module-hooks.js', import.meta.url, { data });
  (globalThis as { [HOOKED]?: boolean })[HOOKED] = true;
}
