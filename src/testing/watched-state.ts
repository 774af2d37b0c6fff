// A state backend of which a simulated run knows when it waits for the machine: level() reads and writes files.
//
// What: the backend itself is used unchanged; calls that give promises are counted while they are open.

import type { Backend, RegionState, StateBackend, TaskState } from '../../state-backends/index.ts';

export class WatchedState {
  readonly backend: StateBackend;
  /** Promises of the backend that are open. */
  open = 0;

  constructor(backend: StateBackend) {
    const real = backend as Backend;
    const watched: Backend = {
      kind: real.kind,
      open: async (options) => this.#region(await this.#counted(real.open(options))),
    };
    this.backend = watched;
  }

  #region(region: RegionState): RegionState {
    return { task: (options) => this.#task(region.task(options)), close: () => this.#counted(region.close()) };
  }

  #task(state: TaskState): TaskState {
    return replacing(state, {
      timers: (uid, name) => {
        const table = state.timers(uid, name);
        return replacing(table, { load: (until) => this.#counted(table.load(until)) });
      },
      load: (file, ranges) => this.#counted(state.load(file, ranges)),
      relieve: () => this.#counted(state.relieve()),
    });
  }

  #counted<R>(promise: Promise<R>): Promise<R> {
    this.open += 1;
    return promise.finally(() => {
      this.open -= 1;
    });
  }
}

/** `object` with some methods replaced; the others are called on the object itself, which has private parts. */
function replacing<O extends object>(object: O, methods: Partial<O>): O {
  return new Proxy(object, {
    get(target, name) {
      if (Object.hasOwn(methods, name)) return Reflect.get(methods, name);
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}
