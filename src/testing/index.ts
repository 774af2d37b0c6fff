// `millrace/testing`: programs and pieces of programs under a test's control.

export type { PendingTimer, Stamped } from './captured.ts';
export { type Harness, type Harness2, type HarnessInput, type HarnessOptions, type HarnessOutput, harness, harness2 } from './harness.ts';
export { type JobOutcome, type RunJobOptions, runJob, type SimulateOptions, simulate } from './run-job.ts';
export { type CrashMarker, crashMarker, type SourceScript } from './scripted-source.ts';
export type { InjectedFaults } from './seeded-faults.ts';
export { type SinkConformanceOptions, type SinkTrial, sinkConformance } from './sink-conformance.ts';
export { type SourceConformanceOptions, type SourceTrial, sourceConformance } from './source-conformance.ts';
export { type BreakableStorage, type ConformanceCase, type StorageConformanceOptions, storageConformance } from './storage-conformance.ts';
