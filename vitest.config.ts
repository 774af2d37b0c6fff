import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';
import LongestFirst from './test/longest-first.ts';

const at = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

export default defineConfig({
  resolve: {
    alias: [
      { find: 'millrace/actors/testing', replacement: at('./actors/testing.ts') },
      { find: 'millrace/testing', replacement: at('./src/testing/index.ts') },
      { find: 'millrace/actors', replacement: at('./actors/index.ts') },
      { find: 'millrace/state-backends', replacement: at('./state-backends/index.ts') },
      { find: 'millrace/kafka', replacement: at('./src/connectors/kafka/index.ts') },
      { find: 'millrace/zookeeper', replacement: at('./src/cluster/zookeeper/index.ts') },
      { find: 'millrace/storage', replacement: at('./src/storage/index.ts') },
      { find: 'millrace/connectors', replacement: at('./src/connectors/index.ts') },
      { find: /^millrace$/, replacement: at('./src/index.ts') },
    ],
  },
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/services/global-setup.ts'],
    testTimeout: 180_000,
    hookTimeout: 180_000,
    // Tests wait for processes and disks as well as they work.
    maxWorkers: 3,
    // Files share their modules: loading the engine anew for each of them took a fifth of the time.
    isolate: false,
    sequence: { sequencer: LongestFirst },
  },
});
