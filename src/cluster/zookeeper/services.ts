// Service discovery: endpoints under the name of a service, each there as long as whoever registered it lives.
//
// Invariants:
//  D1  An endpoint is listed while its session lives, and again after an expiry by itself (kept-node.ts). One whose process died is listed until its session's time is over.
//  D2  A list has the endpoints in the order of host and port. A watch gives it at once, then each time it changes: lists in between may be skipped, the last never.
//  D3  What is no endpoint is left out.

import { randomUUID } from 'node:crypto';
import type { Client } from './client.ts';
import { folderOf, followedFolder } from './follow.ts';
import { KeptNode } from './kept-node.ts';
import { nodeName, SERVICES } from './paths.ts';

/** Where a service answers, and whatever else is to be known of it: plain data. */
export interface Endpoint {
  readonly host: string;
  readonly port: number;
  readonly [name: string]: unknown;
}

export async function register(client: Client, service: string, endpoint: Endpoint): Promise<{ close(): Promise<void> }> {
  const kept = await KeptNode.open(client, `${SERVICES}/${nodeName(service)}/${randomUUID()}`, Buffer.from(JSON.stringify(endpoint)));
  return { close: () => kept.close() };
}

export async function lookup(client: Client, service: string): Promise<Endpoint[]> {
  return endpointsIn(await folderOf(client, `${SERVICES}/${nodeName(service)}`));
}

/** D2. */
export async function* watch(client: Client, service: string, signal: AbortSignal): AsyncGenerator<Endpoint[], void> {
  let last: string | undefined;
  for await (const nodes of followedFolder(client, `${SERVICES}/${nodeName(service)}`, signal)) {
    const endpoints = endpointsIn(nodes);
    const said = JSON.stringify(endpoints);
    if (said === last) continue;
    last = said;
    yield endpoints;
  }
}

function endpointsIn(nodes: ReadonlyMap<string, Buffer>): Endpoint[] {
  const found: Endpoint[] = [];
  for (const value of nodes.values()) {
    try {
      const endpoint = JSON.parse(value.toString()) as Endpoint | null;
      if (typeof endpoint?.host === 'string' && typeof endpoint.port === 'number') found.push(endpoint);
    } catch {
      // D3.
    }
  }
  return found.sort((a, b) => (a.host < b.host ? -1 : a.host > b.host ? 1 : a.port - b.port));
}
