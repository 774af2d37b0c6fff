// The life of a job, as data: an XState machine that the job supervisor steps through; drawn in docs/architecture.md.

import { setup } from 'xstate';

export type JobStep = { type: 'opened' | 'failed' | 'restart' | 'stop' | 'cancel' | 'finished' | 'stopped' | 'give up' };

export const jobLifecycle = setup({ types: { events: {} as JobStep } }).createMachine({
  id: 'job',
  initial: 'starting',
  states: {
    starting: { on: { opened: 'running', restart: 'restarting', stop: 'stopping', cancel: 'cancelled', 'give up': 'failed', finished: 'finished' } },
    running: { on: { restart: 'restarting', stop: 'stopping', cancel: 'cancelled', finished: 'finished', 'give up': 'failed' } },
    restarting: { on: { opened: 'running', stop: 'stopping', cancel: 'cancelled', 'give up': 'failed', finished: 'finished' } },
    stopping: { on: { stopped: 'stopped', finished: 'finished', cancel: 'cancelled', 'give up': 'failed' } },
    finished: { type: 'final' },
    stopped: { type: 'final' },
    cancelled: { type: 'final' },
    failed: { type: 'final' },
  },
});
