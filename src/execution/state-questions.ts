// What one task is asked about its state, and what it answers: data, so that a question crosses threads and processes by the codec of state.
//
// What: rows, not views. What a row means (`result` and `merge` of the program among it) is made of them where the question was asked, so that it is the same wherever
// the task runs. Each answer is of one moment between two turns of the task (`Task.look`).
//
// Who owns what: walks over keys are kept here by the number that whoever asks has given them, and end with the part that its task runs in.
//
// Invariants:
//  A1  Undefined: the attempt has ended before it could answer. Whoever asks goes to the next one.
//  A2  A walk ends when it is left, or with its part, before the state is closed. One that is not here is told as `gone`: its attempt was an older one.

import { type HeldRow, hashKey, type KeyWalk, type Key as StateKey, type TableFigures } from '../../state-backends/index.ts';
import type { Vertex } from '../graph/plan.ts';
import type { WeighedKeys } from '../runtime/hot-keys.ts';
import type { Task } from '../runtime/task.ts';

export type StateQuestion =
  /** Of each key, of each table. */
  | { readonly kind: 'rows'; readonly uid: string; readonly tables: readonly string[]; readonly keys: readonly StateKey[] }
  /** Of state without a key, as it would be stored. */
  | { readonly kind: 'items'; readonly uid: string; readonly state: string }
  | { readonly kind: 'figures' }
  /** Begins one over the keys of a table. */
  | { readonly kind: 'walk'; readonly uid: string; readonly table: string; readonly walk: number }
  | { readonly kind: 'step' | 'leave'; readonly walk: number };

export interface StateAnswers {
  readonly rows: { readonly rows: readonly (readonly (readonly HeldRow[])[])[]; readonly watermark: number; readonly now: number };
  readonly items: readonly unknown[];
  /** `hot`: which keys get the most records, where they are counted. */
  readonly figures: { readonly tables: readonly TableFigures[]; readonly hot: WeighedKeys | undefined };
  readonly walk: 'begun';
  readonly step: { readonly keys: readonly StateKey[] } | 'ended' | 'gone';
  readonly leave: 'left';
}
export type AnswerTo<Q extends StateQuestion> = StateAnswers[Q['kind']];

/** A task of an attempt that runs, wherever it does. */
export interface AskedTask {
  readonly name: string;
  readonly vertex: Vertex;
  /** A1. Rejects with what could not be read. */
  ask<Q extends StateQuestion>(question: Q): Promise<AnswerTo<Q> | undefined>;
}

/** Of the tasks of one part. */
export class StateAnswering {
  readonly #walks = new Map<number, KeyWalk>();
  #closed = false;

  async answer<Q extends StateQuestion>(task: Task, question: Q): Promise<AnswerTo<Q> | undefined> {
    try {
      return (await this.#answer(task, question)) as AnswerTo<Q> | undefined;
    } catch (error) {
      // A1: what it failed on was being closed.
      if (this.#closed) return undefined;
      throw error;
    }
  }

  async #answer(task: Task, question: StateQuestion): Promise<StateAnswers[keyof StateAnswers] | undefined> {
    switch (question.kind) {
      case 'rows': {
        const { uid, tables, keys } = question;
        const looked = await task.look(({ state, watermark, now }) => {
          const ofKey = (key: StateKey): (readonly HeldRow[])[] => {
            const hash = hashKey(key);
            return tables.map((table) => state.rows(uid, table, key, hash));
          };
          return { rows: keys.map(ofKey), watermark, now };
        });
        return looked?.seen;
      }
      case 'items': {
        const looked = await task.look(({ parts }) => parts(question.uid)[question.state]?.items ?? []);
        return looked?.seen;
      }
      case 'figures': {
        const looked = await task.look(({ state }) => ({ tables: state.tables(), hot: task.hotKeys }));
        return looked?.seen;
      }
      case 'walk': {
        const looked = await task.look(({ state }) => state.keys(question.uid, question.table));
        if (looked === undefined || this.#closed) return undefined;
        await this.#walks.get(question.walk)?.close?.();
        this.#walks.set(question.walk, looked.seen);
        return 'begun';
      }
      case 'step': {
        const walk = this.#walks.get(question.walk);
        if (walk === undefined) return this.#closed ? undefined : 'gone';
        // In a turn of its own, since it reads memory; what comes from disk is awaited outside of it.
        const looked = await task.look(() => [walk.next()] as const);
        if (looked === undefined) return undefined;
        const keys = await looked.seen[0];
        return keys === undefined ? 'ended' : { keys };
      }
      case 'leave': {
        const walk = this.#walks.get(question.walk);
        this.#walks.delete(question.walk);
        await walk?.close?.();
        return 'left';
      }
    }
  }

  /** A2. */
  async close(): Promise<void> {
    this.#closed = true;
    const walks = [...this.#walks.values()];
    this.#walks.clear();
    await Promise.all(walks.map((walk) => walk.close?.()));
  }
}
