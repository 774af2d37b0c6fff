// A flag that is a whole number.

export function whole(flag: string, text: string): number {
  const n = Number(text);
  if (!Number.isInteger(n) || n < 0) throw new Error(`--${flag} ${text}: a whole number of 0 or more.`);
  return n;
}
