// What the control door answers about keyed state that is live. Values are JSON as state-json.ts says.
//
//   GET  /jobs/<name>/state                                    [ { uid, state, kind, rows, bytes, hotKeys? } ]; ?uid= of one operator
//   GET  /jobs/<name>/state/get?uid=&state=&key=               { found, value }; the key as JSON, none for state that has none
//   GET  /jobs/<name>/state/scan?uid=&state=&prefix=&limit=&largest=      [ { state, key, value } ]

import { MillraceError } from '../errors.ts';
import type { StateQueries } from '../execution/state-queries.ts';
import { keyOf, shown } from './state-json.ts';

/** More than that is asked of a checkpoint. */
const LIMIT_MAX = 10_000;

export const STATE_QUESTIONS = ['get', 'scan'] as const;

export async function answerState(queries: Pick<StateQueries, 'list' | 'query' | 'scan' | 'isUnkeyed'>, url: string): Promise<unknown> {
  const { pathname, searchParams } = new URL(url, 'http://door');
  const question = pathname.split('/').filter((part) => part !== '')[3];
  const optional = (name: string): string | undefined => searchParams.get(name) ?? undefined;
  if (question === undefined) {
    const states = await queries.list(optional('uid'));
    return states.map(({ hotKeys, ...state }) => ({ ...state, ...(hotKeys && { hotKeys: hotKeys.map(({ key, share }) => ({ key: shown(key), share })) }) }));
  }
  const uid = needed(searchParams, 'uid');
  if (question === 'get') {
    const state = needed(searchParams, 'state');
    const key = queries.isUnkeyed(uid, state) ? optional('key') : needed(searchParams, 'key');
    const value = await queries.query(uid, state, key === undefined ? undefined : keyOf(key));
    return { found: value !== undefined, value: shown(value) };
  }
  const [limit, largest] = [countIn(searchParams, 'limit'), countIn(searchParams, 'largest')];
  const entries = await queries.scan(uid, { state: optional('state'), prefix: optional('prefix'), limit, largest });
  return entries.map(({ state, key, value, bytes }) => ({
    state,
    ...(key === undefined ? {} : { key: shown(key) }),
    value: shown(value),
    ...(bytes === undefined ? {} : { bytes }),
  }));
}

function needed(params: URLSearchParams, name: string): string {
  const value = params.get(name);
  if (value !== null) return value;
  throw new MillraceError('OPTION_INVALID', `The question does not say ${name}.`, { todo: 'Ask for /state, /state/get?uid=&state=&key= or /state/scan?uid=.' });
}

function countIn(params: URLSearchParams, name: string): number | undefined {
  const text = params.get(name);
  if (text === null) return undefined;
  const n = Number(text);
  if (/^\d+$/.test(text) && n >= 1 && n <= LIMIT_MAX) return n;
  throw new MillraceError('OPTION_INVALID', `'${text}' is no ${name}.`, {
    todo: `Write a whole number from 1 to ${LIMIT_MAX}; for more, export a checkpoint.`,
  });
}
