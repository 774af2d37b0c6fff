// What a main thread says to a thread that is a host (src/thread-main.ts), beside what their leader says over its link, as data.
//
// Who is asked with a number answers with that number. 'beat' is answered by 'beat', and 'ready' says that the module is loaded.

import type { MessagePort } from 'node:worker_threads';
import type { ErrorData } from './host-mail.ts';

export type ThreadMail =
  /** `within`: the link goes to a thread of the same process, and no further. */
  | { readonly kind: 'join'; readonly peer: number; readonly port: MessagePort; readonly by: number; readonly within?: boolean }
  | { readonly kind: 'standing' }
  | { readonly kind: 'adopt'; readonly parts: readonly string[]; readonly port: MessagePort }
  | { readonly kind: 'end' };

export type ThreadAsk = ThreadMail & { readonly ask?: number };

export interface ThreadAnswer {
  readonly ask: number;
  readonly value?: unknown;
  readonly error?: ErrorData;
}
