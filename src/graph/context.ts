// What every piece of user code that touches the world is given: a logger and metrics. Interfaces only; the runtime implements them.

export interface LogFn {
  (message: string): void;
  (fields: object, message?: string): void;
}
/** Pino-compatible. */
export interface Logger {
  debug: LogFn;
  info: LogFn;
  warn: LogFn;
  error: LogFn;
  child?(fields: object): Logger;
}
export interface Metrics {
  counter(name: string): { inc(n?: number): void };
  gauge(name: string, read: () => number): void;
  histogram(name: string): { record(value: number): void };
}

export const SILENT: Logger = { debug() {}, info() {}, warn() {}, error() {} };
