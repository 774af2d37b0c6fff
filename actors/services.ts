// What all actors of one system share. The system owns it; cells use it.

import type { Asks } from './ask.ts';
import type { Clock } from './clock.ts';
import type { DeadLetters } from './dead-letters.ts';
import type { Loop } from './host-loop.ts';
import type { Reporter } from './log.ts';

export interface Services {
  readonly loop: Loop;
  readonly clock: Clock;
  readonly random: () => number;
  readonly asks: Asks;
  readonly deadLetters: DeadLetters;
  readonly reporter: Reporter;
  /** True from `stop()` on: nothing is started any more and messages are dead letters. */
  stopping: boolean;
}
