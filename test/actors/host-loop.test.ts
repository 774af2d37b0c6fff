import { describe, expect, test } from 'vitest';
import { type ActorRef, createSystem, defineActor } from '../../actors/index.ts';

const selfMailing = defineActor<number>((ctx) => {
  ctx.self.tell(0);
  return { receive: (n) => ctx.self.tell(n + 1) };
});
const alwaysWorking = defineActor<never>((ctx) => {
  ctx.ready();
  return {
    receive() {},
    work(deadline) {
      while (performance.now() < deadline);
      return true;
    },
  };
});
const echo = defineActor<{ replyTo: ActorRef<string> }>(() => ({ receive: (message) => message.replyTo.tell('here') }));

describe('fairness', () => {
  test.each([
    ['an actor that mails itself', selfMailing],
    ['an actor that always has work', alwaysWorking],
  ])('%s starves neither other actors nor timers and I/O', async (_, busy) => {
    const system = createSystem();
    system.spawn(busy);
    const other = system.spawn(echo);
    for (let round = 0; round < 3; round++) {
      expect(await other.ask<string>((replyTo) => ({ replyTo }))).toBe('here');
      await new Promise((resolve) => setTimeout(resolve, 1));
      await new Promise((resolve) => setImmediate(resolve));
    }
    await system.stop();
  });

  test('a chain of awaited answers does not starve timers', async () => {
    const system = createSystem();
    const other = system.spawn(echo);
    let fired = false;
    setTimeout(() => {
      fired = true;
    }, 1);
    while (!fired) await other.ask<string>((replyTo) => ({ replyTo }));
    expect(fired).toBe(true);
    await system.stop();
  });

  test('three actors that always have work all get on', async () => {
    const system = createSystem();
    const slices = [0, 0, 0];
    for (const index of slices.keys()) {
      system.spawn(
        defineActor<never>((ctx) => {
          ctx.ready();
          return {
            receive() {},
            work(deadline) {
              slices[index] = (slices[index] ?? 0) + 1;
              while (performance.now() < deadline);
              return true;
            },
          };
        }),
      );
    }
    while (Math.min(...slices) < 5) await new Promise((resolve) => setImmediate(resolve));
    await system.stop();
    expect(Math.min(...slices)).toBeGreaterThanOrEqual(5);
  });
});

test('a turn starts promptly: a message told from a callback is handled before the next timer', async () => {
  const system = createSystem();
  const seen: string[] = [];
  const ref = system.spawn(defineActor<string>(() => ({ receive: (message) => void seen.push(message) })));
  ref.tell('at once');
  await Promise.resolve();
  await Promise.resolve();
  expect(seen).toEqual(['at once']);
  await system.stop();
});

test.each([0, -1, Number.NaN])('turnMs %s is refused', (turnMs) => {
  expect(() => createSystem({ turnMs })).toThrow(expect.objectContaining({ code: 'ERR_OPTIONS_INVALID' }));
});
