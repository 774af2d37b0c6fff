// Two streams in one operator: `connect`, of plain, keyed and broadcast streams.

import type { Input, ProcessSpec } from '../graph/node.ts';
import { type ProcessForm, specOf } from './arguments.ts';
import type { Type } from './process.ts';
import type { BroadcastStream, ProcessedStream } from './streams.ts';

/** A stream that goes to every instance. */
export class Broadcast<T> implements BroadcastStream<T> {
  declare readonly broadcasts: Type<T>;
  readonly inputs: readonly Input[];

  constructor(inputs: readonly Input[]) {
    this.inputs = inputs;
  }
}

/** All four kinds of connected streams: what differs between them is in their types, and in the node that `place` adds. */
export class ConnectedStreamsOf {
  readonly #form: ProcessForm;
  readonly #place: (uid: string, spec: ProcessSpec) => unknown;

  constructor(form: ProcessForm, place: (uid: string, spec: ProcessSpec) => unknown) {
    this.#form = form;
    this.#place = place;
  }

  process<R>(uid: string, definition: object): ProcessedStream<R> {
    return this.#place(uid, specOf(uid, definition, ['onLeft', 'onRight'], this.#form)) as ProcessedStream<R>;
  }
}
