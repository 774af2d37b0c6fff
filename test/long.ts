// What of a test is in every run of npm test, and what only in long ones: MILLRACE_LONG=1, as .ci/run has it for these files, and npm run test:chaos.

/** Whether this is a long run. */
export const LONG = process.env.MILLRACE_LONG !== undefined || process.env.npm_lifecycle_event === 'test:chaos';
