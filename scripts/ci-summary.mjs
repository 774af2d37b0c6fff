// The last line of .ci/run, from the JSON reports of the tests: `N passed, N failed`. Exits with 1 unless everything was well.
//
// Arguments: number of failed checks, then for each run of tests whether it ended well (1 or 0) and its report. A test file that could not even be loaded, a run that
// broke off, and each failed check count as one failure. What failed is said again here, with its reason: of a long log often only the end is kept.

import { readFileSync } from 'node:fs';

const [failedChecks, ...runs] = process.argv.slice(2);
let passed = 0;
let failed = Number(failedChecks);
for (let at = 0; at < runs.length; at += 2) {
  const [ok, path] = runs.slice(at, at + 2);
  let passedHere = 0;
  let failedHere = 0;
  try {
    const report = JSON.parse(readFileSync(path, 'utf8'));
    passedHere = report.numPassedTests;
    failedHere = report.numFailedTests;
    for (const file of report.testResults) {
      const failures = file.assertionResults.filter(({ status }) => status === 'failed');
      for (const { fullName, failureMessages } of failures) console.error(`FAILED ${file.name}: ${fullName}\n${failureMessages.join('\n')}`);
      if (file.status !== 'failed' || failures.length > 0) continue;
      console.error(`FAILED ${file.name}: ${file.message}`);
      failedHere += 1;
    }
  } catch (error) {
    console.error(`The tests left no report: ${error.message}`);
  }
  if (ok !== '1' && failedHere === 0) failedHere = 1;
  if (passedHere === 0 && failedHere === 0) failedHere = 1;
  passed += passedHere;
  failed += failedHere;
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
