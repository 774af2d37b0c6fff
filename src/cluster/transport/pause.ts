// A wait that ends early when its signal aborts; at once where that has been.

export async function pause(ms: number, until: AbortSignal): Promise<void> {
  await new Promise<void>((resolve) => {
    const over = (): void => {
      clearTimeout(timer);
      until.removeEventListener('abort', over);
      resolve();
    };
    const timer = setTimeout(over, ms);
    until.addEventListener('abort', over, { once: true });
    if (until.aborted) over();
  });
}
