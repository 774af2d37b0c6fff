// An actor that records its life: what it received, how it was told of ends, why it stopped.

import { type ActorContext, type ActorHandlers, type ActorRef, type Behaviour, defineActor, type ExitReason } from '../../actors/index.ts';

export type Do = string | ((context: ActorContext<Do>) => unknown);

/** Takes strings, which it records, and functions, which it runs with its context. */
export function probe(log: unknown[], name: string, handlers: Partial<ActorHandlers<Do>> & { start?(context: ActorContext<Do>): void } = {}): Behaviour<Do> {
  return defineActor<Do>((ctx) => {
    log.push(`${name} starts`);
    handlers.start?.(ctx);
    return {
      receive(message) {
        if (typeof message === 'function') return message(ctx) as Promise<void> | undefined;
        log.push(`${name} got ${message}`);
        return undefined;
      },
      onSignal: { terminated: (ref, reason) => void log.push(`${name} told of ${ref.path}: ${text(reason)}`) },
      stopping(reason) {
        log.push(`${name} stops: ${text(reason)}`);
        return handlers.stopping?.(reason);
      },
      ...(handlers.work === undefined ? {} : { work: handlers.work }),
      ...(handlers.inspect === undefined ? {} : { inspect: handlers.inspect }),
    };
  });
}

export function text(reason: ExitReason): string {
  if (reason instanceof Error) return (reason as Error & { code?: string }).code ?? reason.message;
  return typeof reason === 'string' ? reason : JSON.stringify(reason);
}

export function fail(message: string): never {
  throw new Error(message);
}

export const dies = (message: string) => (): never => fail(message);

export function watching(log: unknown[], name: string, ...refs: ActorRef<never>[]): Behaviour<Do> {
  return probe(log, name, {
    start(ctx) {
      for (const ref of refs) ctx.watch(ref);
    },
  });
}
