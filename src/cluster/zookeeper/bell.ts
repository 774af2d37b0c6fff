// Something that may have changed: rung by whoever sees it, heard by one who waits. What rings before it is waited for is not missed.

export class Bell {
  #rung = false;
  #hear: (() => void) | undefined;

  ring = (): void => {
    this.#rung = true;
    this.#hear?.();
  };

  /** Whatever rang until now is looked at next. */
  still(): void {
    this.#rung = false;
  }

  /** Resolves when it has rung since `still()`, or the signal aborts. */
  async heard(signal: AbortSignal): Promise<void> {
    if (this.#rung || signal.aborted) return;
    await new Promise<void>((resolve) => {
      const done = (): void => {
        signal.removeEventListener('abort', done);
        this.#hear = undefined;
        resolve();
      };
      this.#hear = done;
      signal.addEventListener('abort', done);
    });
  }
}
