// `millrace/actors/testing`: actors under a seed and a simulated clock.

export { type TestSystem, testSystem } from './test-system.ts';
