// Durations are milliseconds as plain numbers.

/** @example `every: millis(250)` */
export const millis = (n: number): number => n;
/** @example `seconds(5) === 5000` */
export const seconds = (n: number): number => n * 1000;
/** @example `minutes(5) === 300_000` */
export const minutes = (n: number): number => n * 60_000;
/** @example `hours(1) === 3_600_000` */
export const hours = (n: number): number => n * 3_600_000;
/** @example `days(1) === 86_400_000` */
export const days = (n: number): number => n * 86_400_000;
