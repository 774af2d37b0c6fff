// A link within one thread, for hosts that run where their leader does: what is said takes the same way as to any other host.

import { MessageChannel } from 'node:worker_threads';
import type { Link } from './link.ts';
import { threadLink } from './thread-link.ts';

/** Two ends; each name says whom the other one leads to, for messages. */
export function localLinks(one: string, other: string): readonly [one: Link, other: Link] {
  const { port1, port2 } = new MessageChannel();
  return [threadLink(port1, { peer: other }), threadLink(port2, { peer: one })];
}
