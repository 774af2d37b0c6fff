// How many messages a second two actors exchange, and how many one actor takes from another. Prints one JSON line.
//
// Not measured: promises (asks, asynchronous receives), many systems in one thread.

import { type ActorRef, createSystem, defineActor } from '../../actors/index.ts';

const MESSAGES = 5_000_000;
const ROUNDS = 5;

async function pingPong(): Promise<number> {
  const system = createSystem();
  let done: () => void = () => {};
  const over = new Promise<void>((resolve) => {
    done = resolve;
  });
  const echo = system.spawn(
    defineActor<ActorRef<number>>((ctx) => {
      let n = 0;
      return {
        receive(from) {
          from.tell(++n);
          if (n > MESSAGES) ctx.exit();
        },
      };
    }),
  );
  const player = system.spawn(
    defineActor<number>((ctx) => ({
      receive(n) {
        if (n * 2 >= MESSAGES) done();
        else echo.tell(ctx.self);
      },
    })),
  );
  const start = performance.now();
  player.tell(0);
  await over;
  const seconds = (performance.now() - start) / 1000;
  await system.stop();
  return MESSAGES / seconds;
}

async function flood(): Promise<number> {
  const system = createSystem();
  let done: () => void = () => {};
  const over = new Promise<void>((resolve) => {
    done = resolve;
  });
  const sink = system.spawn(
    defineActor<{ n: number }>(() => ({
      receive(message) {
        if (message.n === MESSAGES) done();
      },
    })),
  );
  const source = system.spawn(
    defineActor<number>((ctx) => ({
      receive(from) {
        const to = Math.min(from + 500, MESSAGES);
        for (let n = from + 1; n <= to; n++) sink.tell({ n });
        if (to < MESSAGES) ctx.self.tell(to);
      },
    })),
  );
  const start = performance.now();
  source.tell(0);
  await over;
  const seconds = (performance.now() - start) / 1000;
  await system.stop();
  return MESSAGES / seconds;
}

async function median(run: () => Promise<number>): Promise<number> {
  const results: number[] = [];
  for (let round = 0; round < ROUNDS; round++) results.push(await run());
  results.sort((a, b) => a - b);
  return Math.round(results[Math.floor(ROUNDS / 2)] ?? 0);
}

console.log(
  JSON.stringify({ bench: 'actors', node: process.version, messages: MESSAGES, pingPongPerSecond: await median(pingPong), tellPerSecond: await median(flood) }),
);
