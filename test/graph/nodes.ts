// The nodes of a program, as the plan gets them.

import { jobsOf, type StreamEnvironment } from '../../src/api/job.ts';
import { arraySource } from '../../src/connectors/arrays.ts';
import { iterableSource } from '../../src/connectors/iterables.ts';
import type { Node } from '../../src/graph/node.ts';

export function nodesOf(build: (env: StreamEnvironment) => void): Node[] {
  let nodes: Node[] = [];
  const planned = jobsOf({
    arraySource,
    iterableSource,
    start(definition) {
      nodes = definition.build();
      return new Promise(() => {});
    },
  })('planned', build);
  void planned.start();
  return nodes;
}
