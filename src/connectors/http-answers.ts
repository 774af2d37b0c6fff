// What an answer over HTTP, or the lack of one, means for whoever asked: pure.

/** Worth another try: the server has a fault, is busy, or was too slow. */
export const RETRIED_STATUSES: ReadonlySet<number> = new Set([408, 425, 429, 500, 502, 503, 504]);

const WAIT_MAX_MS = 60_000;

/** Milliseconds that a server asks to be left alone for; 0 where it does not. */
export function retryAfterMs(header: string | null, now: number): number {
  if (header === null) return 0;
  const seconds = Number(header);
  const ms = Number.isFinite(seconds) ? seconds * 1000 : Date.parse(header) - now;
  return Number.isFinite(ms) ? Math.min(Math.max(ms, 0), WAIT_MAX_MS) : 0;
}

/** Of `fetch`, which says what happened in the cause. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { cause } = error;
  if (!(cause instanceof Error)) return error.message;
  const code = String((cause as NodeJS.ErrnoException).code ?? '');
  return cause.message === '' ? code : cause.message;
}
