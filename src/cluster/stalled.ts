// What is said of a thread whose event loop gets no turn. Pure.

import { MillraceError } from '../errors.ts';
import { type Hanging, hangingText } from './hanging.ts';

/** Its operator, where that could be seen, is the error's. */
export function stalledThread(which: string, stallMs: number, hanging: Hanging | undefined): MillraceError {
  return new MillraceError('HOST_LOST', `${which} gave no sign of life for ${stallMs / 1000} s${hangingText(hanging)}.`, {
    uid: hanging?.operator,
    todo: 'Look for a function of the job that does not come to an end; what ran there restarts from the newest checkpoint.',
  });
}
