import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { MessageChannel, Worker } from 'node:worker_threads';
import { afterEach, describe, expect, it } from 'vitest';
import { BUFFERED_MAX, type Link } from '../../../src/cluster/transport/link.ts';
import { RemoteChannels } from '../../../src/cluster/transport/remote-channel.ts';
import { threadLink } from '../../../src/cluster/transport/thread-link.ts';
import { takeBatch } from '../../../src/runtime/batch.ts';
import { bundled } from '../../bundled.ts';
import { Random, SEED } from '../../random.ts';

const opened: { close(): unknown }[] = [];
afterEach(async () => {
  for (const each of opened.splice(0)) await each.close();
});

function links(frameMax?: number): [Link, Link] {
  const { port1, port2 } = new MessageChannel();
  const made: [Link, Link] = [threadLink(port1, { peer: 'two', frameMax }), threadLink(port2, { peer: 'one', frameMax })];
  opened.push(...made);
  return made;
}

describe('a link between threads', () => {
  it('carries frames of any size, in order, both ways', async () => {
    const random = new Random(SEED);
    const [a, b] = links();
    const frames = Array.from({ length: 400 }, (_, i) => Buffer.alloc(random.once(20) ? random.between(1, 300_000) : random.between(1, 200), i & 0xff));
    const got = (link: Link) =>
      new Promise<Buffer[]>((resolve) => {
        const all: Buffer[] = [];
        link.receive((frame) => {
          all.push(Buffer.from(frame));
          if (all.length === frames.length) resolve(all);
        });
      });
    const both = Promise.all([got(a), got(b)]);
    for (const frame of frames) {
      a.send(frame);
      b.send(frame);
      if (random.once(10)) await new Promise(setImmediate);
    }
    for (const all of await both) expect(Buffer.concat(all).equals(Buffer.concat(frames)) && all.length).toBe(frames.length);
  });

  it('says when whoever can wait should, and when to go on', async () => {
    const [a, b] = links();
    expect(a.ready).toBe(true);
    while (a.buffered < BUFFERED_MAX) a.send(Buffer.alloc(100_000));
    expect(a.ready).toBe(false);
    const drained = new Promise<void>((resolve) => {
      a.drained = resolve;
    });
    b.receive(() => {});
    a.receive(() => {});
    await drained;
    expect(a.ready).toBe(true);
  });

  it('that one side closes is closed at the other, without an error or with one', async () => {
    const [a, b] = links();
    a.receive(() => {});
    b.receive(() => {});
    a.close();
    expect([await a.closed, await b.closed]).toEqual([undefined, undefined]);
    a.send(Buffer.from('nobody'));
    const [c, d] = links(100);
    c.receive(() => {});
    d.receive(() => {});
    c.send(Buffer.alloc(101));
    expect([await c.closed, await d.closed]).toMatchObject([{ code: 'LINK_LOST' }, { code: 'LINK_CORRUPT' }]);
  });

  it('whose receiver throws is closed', async () => {
    const [a, b] = links();
    a.receive(() => {});
    b.receive(() => {
      throw new Error('broken here');
    });
    a.send(Buffer.from('x'));
    expect(await b.closed).toMatchObject({ code: 'LINK_LOST', cause: expect.objectContaining({ message: 'broken here' }) });
    expect(await a.closed).toMatchObject({ code: 'LINK_LOST' });
  });
});

describe('channels to a thread', () => {
  function echo(lanes: number): { worker: Worker; channels: RemoteChannels } {
    const { port1, port2 } = new MessageChannel();
    const worker = new Worker(bundled(fileURLToPath(new URL('./echo-thread.ts', import.meta.url))), {
      workerData: { port: port2, lanes },
      transferList: [port2],
    });
    worker.on('error', () => {});
    const link = threadLink(port1, { peer: 'echo' });
    const channels = new RemoteChannels(link);
    opened.push({ close: () => worker.terminate() }, link);
    return { worker, channels };
  }

  it('carry all records there and back, under back-pressure, with barriers between', async () => {
    const lanes = 3;
    const batches = 200;
    const { channels } = echo(lanes);
    const results = Array.from({ length: lanes }, async (_, lane) => {
      const got: unknown[] = [];
      await new Promise<void>((resolve, reject) => {
        let sent = 0;
        const fill = (): void => {
          for (; sent < batches && out.channel.open; sent++) {
            const batch = takeBatch(true);
            for (let i = 0; i < 10; i++) batch.addKeyed({ n: sent * 10 + i, text: 'some words' }, i, `k${i}`, i);
            out.channel.send(batch);
            if (sent % 50 === 49) out.channel.signal({ kind: 'barrier', barrier: { id: sent, startedAt: 1, stop: false } });
          }
          if (sent === batches) {
            sent += 1;
            out.channel.signal({ kind: 'end' });
          }
        };
        const out = channels.out({ name: `to ${lane}`, attempt: 1, from: 'test', to: 'echo', wake: fill, failed: reject });
        const into = channels.in({
          name: `back ${lane}`,
          attempt: 1,
          wake: () => {
            for (let element = into.channel.take(); element !== undefined; element = into.channel.take()) {
              if (!('kind' in element)) got.push(...element.values.slice(0, element.size));
              else if (element.kind === 'barrier') got.push(element.barrier.id);
              else resolve();
            }
          },
        });
        fill();
      });
      return got;
    });
    const expected: number[] = [];
    for (let b = 0; b < batches; b++) {
      for (let i = 0; i < 10; i++) expected.push((b * 10 + i) * 2);
      if (b % 50 === 49) expected.push(b);
    }
    for (const got of await Promise.all(results)) expect(got).toEqual(expected);
    expect(channels.figures).toMatchObject({ sent: lanes * batches, received: lanes * batches, dropped: 0 });
  });

  for (const how of ['throw', 'exit', 'terminate'] as const) {
    it(`are lost when the thread ends: ${how}`, async () => {
      const { worker, channels } = echo(1);
      await once(worker, 'online');
      if (how === 'terminate') await worker.terminate();
      else channels.tell(how);
      expect(await channels.lost).toMatchObject({ code: 'LINK_LOST' });
    });
  }
});
