import { afterEach, describe, expect, it } from 'vitest';
import { type Connection, Connections } from '../../../src/cluster/transport/connections.ts';
import { releaseBatch } from '../../../src/runtime/batch.ts';
import { Child } from '../../protocols/processes.ts';

const open: Connections[] = [];
afterEach(async () => {
  await Promise.all(open.splice(0).map((each) => each.close()));
});

const nothing = (): void => {};

async function talking(deadAfter?: number): Promise<{ child: Child; connect(): Promise<Connection> }> {
  const child = new Child('../cluster/transport/talking-process.ts', ['b', 'a']);
  const port = Number((await child.said(/^port/))?.slice(5));
  const connections = new Connections({
    hello: () => ({ cluster: 'c', worker: 'a', epoch: 1, plans: [] }),
    secret: 'open sesame',
    heartbeat: 50,
    deadAfter,
    log: { debug: nothing, info: nothing, warn: nothing, error: nothing },
  });
  open.push(connections);
  return { child, connect: () => connections.connect({ worker: 'b', host: '127.0.0.1', port }) };
}

/** Takes what is said; `enough` once there is so much of it. */
function listen({ channels }: Connection, much: number): { got: number[]; enough: Promise<void> } {
  const got: number[] = [];
  const enough = new Promise<void>((resolve) => {
    const into = channels.in({
      name: 'talk',
      attempt: 1,
      wake() {
        for (let element = into.channel.take(); element !== undefined; element = into.channel.take()) {
          if ('kind' in element) continue;
          for (let i = 0; i < element.size; i++) got.push((element.values[i] as { n: number }).n);
          releaseBatch(element);
        }
        if (got.length >= much) resolve();
      },
    });
  });
  return { got, enough };
}

const fromZero = (got: readonly number[]): boolean => got.every((n, i) => n === i) && got.length % 100 === 0;

describe('a worker that talks', () => {
  it('and is killed is lost, and what came of it is whole and without a gap', async () => {
    const { child, connect } = await talking();
    const connection = await connect();
    const { got, enough } = listen(connection, 20_000);
    await enough;
    child.process.kill('SIGKILL');
    expect(await connection.lost).toMatchObject({ code: 'LINK_LOST' });
    expect(await connection.channels.lost).toMatchObject({ code: 'LINK_LOST' });
    expect(fromZero(got)).toBe(true);
    expect(got.length).toBeGreaterThanOrEqual(20_000);
  });

  it('and is stopped is lost too; when it goes on it knows, and is heard again only over a new connection', async () => {
    const { child, connect } = await talking(1500);
    const first = await connect();
    const before = listen(first, 5000);
    await before.enough;
    child.process.kill('SIGSTOP');
    expect(await first.lost).toMatchObject({ code: 'LINK_LOST' });
    const heard = before.got.length;
    child.process.kill('SIGCONT');
    expect(await child.said(/^lost/)).toBe('lost LINK_LOST');
    const second = await connect();
    const after = listen(second, 5000);
    await after.enough;
    expect(before.got.length).toBe(heard);
    expect([fromZero(before.got), fromZero(after.got)]).toEqual([true, true]);
  });
});
