// The last line of .ci/run, from the JSON report of the tests: `N passed, N failed`. Exits with 1 unless everything was well.
//
// A test file that could not even be loaded, a run that broke off, and each failed check count as one failure.

import { readFileSync } from 'node:fs';

const [path, testsOk, failedChecks] = process.argv.slice(2);
let passed = 0;
let failed = 0;
try {
  const report = JSON.parse(readFileSync(path, 'utf8'));
  passed = report.numPassedTests;
  failed = report.numFailedTests;
  for (const file of report.testResults) {
    if (file.status !== 'failed' || file.assertionResults.some(({ status }) => status === 'failed')) continue;
    console.error(`${file.name}: ${file.message}`);
    failed += 1;
  }
} catch (error) {
  console.error(`The tests left no report: ${error.message}`);
}
if (testsOk !== '1' && failed === 0) failed = 1;
if (passed === 0 && failed === 0) failed = 1;
failed += Number(failedChecks);
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
