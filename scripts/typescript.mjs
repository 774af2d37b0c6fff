// For `node --import ./scripts/typescript.mjs file.ts`: runs TypeScript that only strips, on Node versions that cannot strip it themselves.

import { register } from 'node:module';

register('./strip-types.mjs', import.meta.url);
