// The nodes of a program while it is being built.
//
// Invariant B1: a uid is used once in a job; whatever holds state or touches the world has one.

import { MillraceError } from '../errors.ts';
import type { Input, Node, Step } from './node.ts';

/** Steps without state that touch nothing outside: they have no uid. */
const ANONYMOUS: ReadonlySet<Step['kind']> = new Set(['map', 'filter', 'flatMap', 'split', 'timestamps']);

/** The nodes of the program that is being built. */
export class GraphBuilder {
  readonly nodes: Node[] = [];
  readonly #uids = new Set<string>();

  add(uid: string | undefined, step: Step, inputs: readonly Input[]): Node {
    if (uid !== undefined || !ANONYMOUS.has(step.kind)) {
      if (typeof uid !== 'string' || !/^[a-z0-9-]+$/.test(uid))
        throw new MillraceError('UID_INVALID', `'${String(uid)}' is no uid.`, { todo: 'A uid is made of lower-case letters, digits and hyphens.' });
      if (this.#uids.has(uid))
        throw new MillraceError('UID_DUPLICATE', `The uid '${uid}' is used twice.`, {
          uid,
          todo: 'Every source, sink and stateful operator of a job has a uid of its own.',
        });
      this.#uids.add(uid);
    }
    const own = uid === undefined ? step.kind : `'${uid}'`;
    if (inputs.some((input) => this.nodes[input.node.index] !== input.node))
      throw new MillraceError('PLAN_INVALID', `${own} reads a stream of another job.`, {
        ...(uid === undefined ? {} : { uid }),
        todo: 'Streams go no further than the call of job() that made them: write to a sink, and read that with a source.',
      });
    const node: Node = { index: this.nodes.length, uid, step, inputs, tag: undefined, parallelism: undefined, chain: undefined, onError: 'restart' };
    this.nodes.push(node);
    return node;
  }
}
