// The sink that prints: one line of JSON a record, `prefix> {"word":"a","count":1}`.
//
// A batch is one write. When the reader of standard output is slow, `write` holds the next batch back until it has caught up; when it is gone (a
// closed pipe), the sink fails with the reason instead of ending the process, and no restart is tried: the reader does not come back.

import type { Writable } from 'node:stream';
import { MillraceError, messageOf } from '../errors.ts';
import type { Sink } from '../graph/sink.ts';

/**
 * A sink that writes each record as a line of JSON. At least once; a slow reader holds the job back.
 *
 * @param options `prefix` stands before each line, followed by `> `; none by default.
 * @param stream where to, standard output by default.
 * @throws SINK_FAILED in the job, when the stream cannot be written any more; not retryable where its reader has gone (EPIPE).
 * @example
 * import { PassThrough } from 'node:stream';
 *
 * const lines = new PassThrough({ encoding: 'utf8' });
 * await job('greet', (env) => {
 *   env.fromArray('in', [{ hello: 'mill' }]).sink('out', print({ prefix: 'greet' }, lines));
 * }).run();
 * assert.equal(lines.read(), 'greet> {"hello":"mill"}\n');
 */
export function print<T>(options: { prefix?: string } = {}, stream: Writable = process.stdout): Sink<T> {
  const lead = options.prefix === undefined || options.prefix === '' ? '' : `${options.prefix}> `;
  return {
    async open(context) {
      let failure: MillraceError | undefined;
      const onError = (cause: unknown): void => {
        const gone = (cause as { code?: unknown } | null)?.code === 'EPIPE';
        failure ??= new MillraceError('SINK_FAILED', `Standard output cannot be written: ${messageOf(cause)}.`, {
          uid: context.uid,
          cause,
          ...(gone ? { retryable: false } : {}),
        });
      };
      stream.on('error', onError);
      // Each instance listens, twice while it waits: Node would take more than ten of them for a leak.
      stream.setMaxListeners(stream.getMaxListeners() + 2);
      let open = true;
      return {
        write(values) {
          if (failure !== undefined) throw failure;
          let lines = '';
          for (const value of values) lines += `${lead}${printed(value)}\n`;
          if (lines === '' || stream.write(lines)) return undefined;
          return until('drain');
        },
        async flush() {
          if (failure !== undefined) throw failure;
          await new Promise<void>((resolve, reject) => stream.write('', (error) => (error ? reject(failure ?? error) : resolve())));
        },
        async close() {
          if (!open) return;
          open = false;
          stream.off('error', onError);
          stream.setMaxListeners(stream.getMaxListeners() - 2);
        },
      };

      function until(event: 'drain'): Promise<void> {
        return new Promise((resolve, reject) => {
          const settle = (): void => {
            stream.off(event, settle);
            stream.off('error', settle);
            stream.off('close', settle);
            context.signal.removeEventListener('abort', settle);
            if (failure === undefined) resolve();
            else reject(failure);
          };
          stream.on(event, settle);
          stream.on('error', settle);
          stream.on('close', settle);
          context.signal.addEventListener('abort', settle);
        });
      }
    },
  };
}

/** JSON, with words for what JSON cannot hold, because what is printed is read by people. */
function printed(value: unknown): string {
  return JSON.stringify(value, (_, part: unknown) => (typeof part === 'bigint' ? String(part) : part)) ?? String(value);
}
