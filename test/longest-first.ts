// The order of test files: those that take long begin first, so that no worker waits for another at the end. vitest's own order in a fresh clone goes by the size
// of files, and the longest of these are short to read.

import { BaseSequencer, type TestSpecification } from 'vitest/node';

const LONG = [
  'e2e/killed',
  'e2e/ways',
  'e2e/straight',
  'state-backends/properties',
  'cli/run',
  'e2e/nexmark-ways',
  'protocols/01-snapshots',
  'connectors/files-sink-killed',
  'protocols/14-two-processes',
  'rules/package',
  'cli/look',
  'e2e/nexmark-straight',
  'checkpoint/savepoints-killed',
];

function rankOf({ moduleId }: TestSpecification): number {
  const at = LONG.findIndex((name) => moduleId.endsWith(`test/${name}.test.ts`));
  return at === -1 ? LONG.length : at;
}

export default class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    return (await super.sort(files)).sort((left, right) => rankOf(left) - rankOf(right));
  }
}
