// What every piece of user code that touches the world is given: a logger and metrics. Interfaces only; the runtime implements them.

/** Takes a sentence, or fields and a sentence. */
export interface LogFn {
  (message: string): void;
  (fields: object, message?: string): void;
}
/** Where words of the job go. Pino-compatible. */
export interface Logger {
  debug: LogFn;
  info: LogFn;
  warn: LogFn;
  error: LogFn;
  /** A logger that adds these fields to all it says. */
  child?(fields: object): Logger;
}
/** Figures of user code, labelled with uid and subtask; `RunningJob.metrics()` gives them. */
export interface Metrics {
  /** `inc` adds 1 by default. */
  counter(name: string): { inc(n?: number): void };
  /** `read` is called whenever somebody looks. */
  gauge(name: string, read: () => number): void;
  /** Count, median and 99th percentile of the newest 1,024 values. */
  histogram(name: string): { record(value: number): void };
}

export const SILENT: Logger = { debug() {}, info() {}, warn() {}, error() {} };
