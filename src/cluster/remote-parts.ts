// The parts of a region's attempt at all hosts that have some of its tasks: asked for alike, and all open or none.

import type { PartOptions, RegionPart } from '../execution/region-part.ts';
import type { HostLink } from './host-link.ts';
import type { PartRequest } from './host-mail.ts';
import { RemotePart } from './remote-part.ts';

/** `placement`: by task, the number of its host. */
export function partRequest(options: PartOptions, placement: ReadonlyMap<string, number>): PartRequest {
  const { graph } = options;
  return {
    region: options.number,
    attempt: options.attempt,
    lineage: options.lineage,
    parallelism: graph.defaults.parallelism,
    version: graph.defaults.version,
    planHash: graph.plan.hash,
    maxParallelism: options.maxParallelism,
    blocking: options.blocking,
    watermarkEachBatch: options.watermarkEachBatch,
    metadata: options.metadata,
    usedIds: options.usedIds,
    lastCheckpoint: options.lastCheckpoint(),
    placement,
  };
}

/** Throws what prevents one of them; those that were opened by then are closed. */
export async function openParts(
  hosts: readonly { readonly host: HostLink; readonly number: number }[],
  request: PartRequest,
  options: PartOptions,
): Promise<readonly RegionPart[]> {
  const parts = hosts.map(({ host, number }) => {
    const part = new RemotePart(host, number, request, options);
    host.add(part);
    return part;
  });
  const opened = await Promise.allSettled(parts.map((part) => part.open()));
  const failed = opened.find((each) => each.status === 'rejected');
  if (failed === undefined) return parts;
  for (const [i, part] of parts.entries()) if (opened[i]!.status === 'fulfilled') await part.close();
  throw failed.reason;
}
