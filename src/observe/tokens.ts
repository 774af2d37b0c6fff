// Who may do what through the control door: tokens with roles. Pure.
//
// `operate` looks and acts, `read` looks. One token given as a string is that of `operate`, and where there is none for a role, that role is nobody's but of who has more.
//
// Invariants:
//  K1  Tokens are compared in constant time, over digests of equal length, and each of them whatever the others gave.
//  K2  A door without any token is open: it listens on this machine only.

import { createHash, timingSafeEqual } from 'node:crypto';
import { MillraceError } from '../errors.ts';
import type { ControlTokens } from '../graph/job.ts';

export type Role = 'read' | 'operate';
/** What a request may do; `stranger`: it has given no token, or one that is nobody's. */
export type Standing = Role | 'stranger';

/** Digests, so that all are of one length. */
export interface Tokens {
  readonly read: Buffer | undefined;
  readonly operate: Buffer | undefined;
}

/** Undefined: whoever reaches the door may do everything. Throws OPTION_INVALID for tokens that would let in whom they should not. */
export function tokensOf(token: string | ControlTokens | undefined): Tokens | undefined {
  if (token === undefined) return undefined;
  if (token === null || (typeof token !== 'string' && typeof token !== 'object')) throw invalid('control.token is neither a text nor an object.');
  const { read, operate } = typeof token === 'string' ? { read: undefined, operate: token } : token;
  if (read === undefined && operate === undefined) throw invalid('control.token names neither a token to read nor one to operate.');
  for (const each of [read, operate])
    if (each !== undefined && (typeof each !== 'string' || !/^[\x21-\x7e]+$/.test(each)))
      throw invalid('A token of the control door is empty, or has characters that no header carries.');
  if (read === operate) throw invalid('The control door has one token for both roles: whoever may look could act.');
  return { read: read === undefined ? undefined : digest(read), operate: operate === undefined ? undefined : digest(operate) };
}

/** K1. */
export function standingOf(given: string | undefined, tokens: Tokens | undefined): Standing {
  if (tokens === undefined) return 'operate';
  if (given === undefined) return 'stranger';
  const of = digest(given);
  const reads = tokens.read !== undefined && timingSafeEqual(of, tokens.read);
  const operates = tokens.operate !== undefined && timingSafeEqual(of, tokens.operate);
  return operates ? 'operate' : reads ? 'read' : 'stranger';
}

export function mayDo(standing: Standing, needed: Role): boolean {
  return standing === 'operate' || standing === needed;
}

/** K2. */
export function refuseOpen(host: string, isThisMachine: boolean, tokens: Tokens | undefined): void {
  if (isThisMachine || tokens !== undefined) return;
  throw new MillraceError('OPTION_INVALID', `The control door is to listen on ${host}, where others reach it, and has no token.`, {
    todo: 'Give it one: control: { token } (MILLRACE_TOKEN for millrace run), or leave control.host out: then it listens on this machine only.',
  });
}

function digest(token: string): Buffer {
  return createHash('sha256').update(token).digest();
}

function invalid(sentence: string): MillraceError {
  return new MillraceError('OPTION_INVALID', sentence, {
    todo: "Write control: { token: 'secret' }, or control: { token: { read: 'one', operate: 'another' } }, of letters, digits and signs without spaces.",
  });
}
