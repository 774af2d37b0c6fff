// Durations are milliseconds as plain numbers.

/**
 * `n` milliseconds.
 * @example
 * assert.equal(millis(250), 250);
 */
export const millis = (n: number): number => n;
/**
 * `n` seconds, in milliseconds.
 * @example
 * assert.equal(seconds(5), 5_000);
 */
export const seconds = (n: number): number => n * 1000;
/**
 * `n` minutes, in milliseconds.
 * @example
 * assert.equal(minutes(5), 300_000);
 */
export const minutes = (n: number): number => n * 60_000;
/**
 * `n` hours, in milliseconds.
 * @example
 * assert.equal(hours(1), 3_600_000);
 */
export const hours = (n: number): number => n * 3_600_000;
/**
 * `n` days of 24 hours, in milliseconds.
 * @example
 * assert.equal(days(1), 86_400_000);
 */
export const days = (n: number): number => n * 86_400_000;
