// What the command says: short lines on standard error, errors as `CODE: sentence`, or each as one line of JSON. Standard output belongs to results.

import { type ErrorCode, messageOf } from '../errors.ts';

export interface Said {
  /** A line for people, and the same as data for --json. */
  line(text: string, data: Record<string, unknown>): void;
  error(error: unknown): void;
}

export function saying(json: boolean, write: (text: string) => void = (text) => void process.stderr.write(text)): Said {
  return {
    line: (text, data) => write(`${json ? JSON.stringify(data) : text}\n`),
    error: (error) => {
      write(`${json ? JSON.stringify({ error: describedError(error) }) : errorLine(error)}\n`);
      if (wantsStacks()) write(`${stacksOf(error)}\n`);
    },
  };
}

/** `otherwise`: the code of an error that has none. */
export function describedError(
  error: unknown,
  otherwise: ErrorCode = 'RUNTIME_FAILED',
): { code: string; message: string; todo: string | null; retryable: boolean } {
  const { code, todo, retryable } = (typeof error === 'object' && error !== null ? error : {}) as Record<string, unknown>;
  const full = messageOf(error);
  return {
    code: typeof code === 'string' ? code : otherwise,
    message: oneLine(typeof todo === 'string' && full.endsWith(todo) ? full.slice(0, -todo.length) : full),
    todo: typeof todo === 'string' ? todo : null,
    retryable: retryable === true,
  };
}

export function errorLine(error: unknown, otherwise?: ErrorCode): string {
  const { code, message, todo } = describedError(error, otherwise);
  return `${code}: ${message}${todo === null ? '' : ` ${todo}`}`;
}

function oneLine(text: string): string {
  return text.replace(/\s*\n\s*/g, ' ').trim();
}

function wantsStacks(): boolean {
  return (process.env.MILLRACE_DEBUG ?? '') !== '';
}

function stacksOf(error: unknown): string {
  const parts: string[] = [];
  for (let at: unknown = error; at !== undefined && parts.length < 10; at = (at as { cause?: unknown } | null)?.cause)
    parts.push(at instanceof Error ? (at.stack ?? at.message) : String(at));
  return parts.join('\ncaused by: ');
}
