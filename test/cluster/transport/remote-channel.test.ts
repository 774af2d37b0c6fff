import { describe, expect, it } from 'vitest';
import { RemoteChannels, type RemoteEnd, WINDOW, WINDOW_MAX } from '../../../src/cluster/transport/remote-channel.ts';
import type { MillraceError } from '../../../src/errors.ts';
import { Batch } from '../../../src/runtime/batch.ts';
import { type Channel, CREDIT, type Event } from '../../../src/runtime/channel.ts';
import { Random, rounds, SEED } from '../../random.ts';
import { MemoryLink } from './memory-link.ts';

const BARRIER = (id: number, unaligned?: number): Event => ({ kind: 'barrier', barrier: { id, startedAt: 5, stop: false, unaligned } });

function batchOf(...values: unknown[]): Batch {
  const batch = new Batch(true, 8);
  for (const v of values) batch.addKeyed(v, 3, `key of ${String(v)}`, 17);
  return batch;
}

interface Pair {
  readonly links: [MemoryLink, MemoryLink];
  readonly here: RemoteChannels;
  readonly there: RemoteChannels;
  readonly failures: MillraceError[];
  readonly wakes: { sender: number; receiver: number };
  sender(name?: string, attempt?: number): RemoteEnd;
  receiver(name?: string, attempt?: number): RemoteEnd;
  settle(): void;
}

function pair(options: { window?: number; windowMax?: number } = {}): Pair {
  const links = MemoryLink.pair();
  const here = new RemoteChannels(links[0], options);
  const there = new RemoteChannels(links[1], options);
  const failures: MillraceError[] = [];
  const wakes = { sender: 0, receiver: 0 };
  const woken = (who: 'sender' | 'receiver'): void => {
    wakes[who] += 1;
  };
  return {
    links,
    here,
    there,
    failures,
    wakes,
    sender: (name = 'lane', attempt = 1) =>
      here.out({ name, attempt, from: 'a', to: 'b', wake: () => woken('sender'), failed: (error) => void failures.push(error) }),
    receiver: (name = 'lane', attempt = 1) => there.in({ name, attempt, wake: () => woken('receiver') }),
    settle() {
      while (links[0].coming + links[1].coming > 0) {
        links[0].deliver();
        links[1].deliver();
      }
    },
  };
}

/** What stands at the head, taken; batches as their values. */
function takeAll(channel: Channel): unknown[] {
  const out: unknown[] = [];
  for (let element = channel.take(); element !== undefined; element = channel.take())
    out.push('kind' in element ? element : element.values.slice(0, element.size));
  return out;
}

describe('a channel between hosts', () => {
  it('carries batches and events in order, whichever end is there first', () => {
    for (const first of ['sender', 'receiver'] as const) {
      const p = pair();
      let receiver = first === 'receiver' ? p.receiver() : undefined;
      p.settle();
      const sender = p.sender();
      sender.channel.send(batchOf(1, 2));
      sender.channel.signal({ kind: 'watermark', time: 9 });
      sender.channel.send(batchOf(3));
      p.settle();
      receiver ??= p.receiver();
      p.settle();
      expect(takeAll(receiver.channel)).toEqual([[1, 2], { kind: 'watermark', time: 9 }, [3]]);
      expect(p.wakes.receiver).toBeGreaterThan(0);
    }
  });

  it('sends nothing before there is a receiver', () => {
    const p = pair();
    const sender = p.sender();
    for (let i = 0; i < CREDIT; i++) sender.channel.send(batchOf(i));
    sender.channel.signal(BARRIER(1, 0));
    p.settle();
    expect(p.there.figures.received + p.there.figures.dropped).toBe(0);
    expect(sender.channel.open).toBe(false);
  });

  it('has at most the window sent and not taken, and events wait behind the batches', () => {
    const p = pair();
    const [sender, receiver] = [p.sender(), p.receiver()];
    p.settle();
    let sent = 0;
    while (sender.channel.open) {
      sender.channel.send(batchOf(sent++));
      p.settle();
    }
    sender.channel.signal({ kind: 'watermark', time: 1 });
    p.settle();
    expect(sent).toBe(WINDOW + CREDIT);
    expect(receiver.channel.depth).toBe(WINDOW);
    const woken = p.wakes.sender;
    const got: unknown[] = [];
    while (got.length < sent + 1) {
      got.push(...takeAll(receiver.channel));
      p.settle();
    }
    expect(p.wakes.sender).toBeGreaterThan(woken);
    expect(got).toEqual([...Array.from({ length: sent }, (_, i) => [i]), { kind: 'watermark', time: 1 }]);
  });

  it('has more sent and not taken where the receiver keeps up, and as few as before once it does not', () => {
    const p = pair();
    const [sender, receiver] = [p.sender(), p.receiver()];
    p.settle();
    let [sent, taken] = [0, 0];
    const fill = (): number => {
      while (sender.channel.open) {
        sender.channel.send(batchOf(sent++));
        // What stands behind a batch does not hide that it was the last.
        sender.channel.signal({ kind: 'watermark', time: sent });
        p.settle();
      }
      return sent - taken;
    };
    const take = (batches: number): void => {
      for (const until = taken + batches; taken < until; ) {
        if (receiver.channel.depth === 0) p.settle();
        if (!('kind' in receiver.channel.take()!)) taken += 1;
      }
      p.settle();
    };
    expect(fill()).toBe(WINDOW + CREDIT);
    for (let turn = 0; turn < 10; turn++) take(fill());
    expect(fill()).toBe(WINDOW_MAX + CREDIT);
    // It never empties the channel from now on.
    for (let n = 0; n < 4 * WINDOW_MAX; n++) {
      take(1);
      fill();
    }
    expect(fill()).toBe(WINDOW + CREDIT);
    // And keeps up again.
    for (let turn = 0; turn < 10; turn++) take(fill());
    expect(fill()).toBe(WINDOW_MAX + CREDIT);
  });

  for (const event of [BARRIER(1), BARRIER(1, 0), BARRIER(1, 100), { kind: 'cancel', id: 1 }, { kind: 'end' }] as Event[]) {
    it(`lets pass without credit, and what stands in front of it: ${JSON.stringify(event)}`, () => {
      const p = pair();
      const [sender, receiver] = [p.sender(), p.receiver()];
      p.settle();
      let sent = 0;
      while (sender.channel.open) {
        sender.channel.send(batchOf(sent++));
        p.settle();
      }
      sender.channel.signal(event);
      p.settle();
      expect(receiver.channel.depth).toBe(sent + 1);
      expect(sender.channel.depth).toBe(0);
      // What went without credit is owed: the sender is not open before it is paid.
      expect(sender.channel.open).toBe(false);
      expect(takeAll(receiver.channel)).toHaveLength(sent + 1);
      p.settle();
      expect(sender.channel.open).toBe(true);
    });
  }

  it('does not grow with each barrier that passes a receiver that takes nothing', () => {
    const p = pair();
    const [sender, receiver] = [p.sender(), p.receiver()];
    p.settle();
    let sent = 0;
    for (let id = 1; id <= 50; id++) {
      while (sender.channel.open) {
        sender.channel.send(batchOf(sent++));
        p.settle();
      }
      sender.channel.signal(BARRIER(id, 0));
      p.settle();
    }
    expect(sent).toBe(WINDOW + CREDIT);
    expect(receiver.channel.depth).toBe(sent + 50);
  });

  it('gives no credit back while the gate withholds it, and all of it afterwards', () => {
    const p = pair();
    const [sender, receiver] = [p.sender(), p.receiver()];
    p.settle();
    receiver.channel.withheld = true;
    let sent = 0;
    for (let round = 0; round < 20; round++) {
      while (sender.channel.open) sender.channel.send(batchOf(sent++));
      p.settle();
      takeAll(receiver.channel);
      p.settle();
    }
    expect(sent).toBe(WINDOW + CREDIT);
    receiver.channel.release();
    p.settle();
    expect(sender.channel.open).toBe(true);
    expect(takeAll(receiver.channel)).toHaveLength(CREDIT);
  });

  it('waits while the link is full, and goes on when it is drained; a barrier does not wait', () => {
    const p = pair();
    const [sender, receiver] = [p.sender(), p.receiver()];
    p.settle();
    p.links[0].full = true;
    sender.channel.send(batchOf(1));
    p.settle();
    expect(receiver.channel.depth).toBe(0);
    p.links[0].drain();
    p.settle();
    expect(takeAll(receiver.channel)).toEqual([[1]]);
    p.links[0].full = true;
    sender.channel.send(batchOf(2));
    sender.channel.signal(BARRIER(1));
    p.settle();
    expect(takeAll(receiver.channel)).toEqual([[2], BARRIER(1)]);
  });

  it('tells the receiver’s gate of what enters, and records what comes until the barrier has', () => {
    const p = pair();
    const [sender, receiver] = [p.sender(), p.receiver()];
    const entered: string[] = [];
    const recorded: unknown[] = [];
    receiver.channel.entered = (event) => {
      entered.push(event.kind);
      receiver.channel.recorder = undefined;
    };
    receiver.channel.recorder = { batch: (batch) => void recorded.push(batch.values[0]), event: (event) => void recorded.push(event.kind) };
    p.settle();
    for (let i = 0; i < 20; i++) sender.channel.send(batchOf(i));
    sender.channel.signal({ kind: 'idle' });
    sender.channel.signal(BARRIER(4, 0));
    sender.channel.send(batchOf(20));
    p.settle();
    expect(entered).toEqual(['barrier']);
    expect(recorded).toEqual([...Array.from({ length: 20 }, (_, i) => i), 'idle']);
  });

  it('fails the sending task, naming uid and key, where a record cannot be encoded; others go on', () => {
    const p = pair();
    const [bad, good] = [p.sender('bad'), p.sender('good')];
    const [atBad, atGood] = [p.receiver('bad'), p.receiver('good')];
    p.settle();
    bad.channel.send(batchOf(1, () => 2));
    bad.channel.send(batchOf(3));
    good.channel.send(batchOf(4));
    p.settle();
    expect(p.failures).toHaveLength(1);
    expect(p.failures[0]).toMatchObject({ code: 'STATE_NOT_SERIALIZABLE', uid: 'a', retryable: false });
    expect(p.failures[0]!.message).toContain('"key of () => 2"');
    expect(p.failures[0]!.message).toContain('a function');
    expect(takeAll(atBad.channel)).toEqual([]);
    expect(takeAll(atGood.channel)).toEqual([[4]]);
  });

  it('drops and counts what an older attempt still sends', () => {
    const p = pair();
    const old = p.sender('lane', 1);
    const stale = p.receiver('lane', 1);
    p.settle();
    old.channel.send(batchOf('old'));
    // On its way when the receiver's region begins anew.
    const fresh = p.receiver('lane', 2);
    old.channel.send(batchOf('older'));
    p.settle();
    expect(p.there.figures.dropped).toBe(2);
    expect(takeAll(fresh.channel)).toEqual([]);
    expect(takeAll(stale.channel)).toEqual([]);
    const next = p.sender('lane', 2);
    next.channel.send(batchOf('new'));
    p.settle();
    expect(takeAll(fresh.channel)).toEqual([['new']]);
    // An end of the old attempt that comes late is nobody's.
    old.close();
    p.settle();
    next.channel.send(batchOf('newer'));
    p.settle();
    expect(takeAll(fresh.channel)).toEqual([['newer']]);
  });

  it('is not bound to a sender of an older attempt that opens late', () => {
    const p = pair();
    const fresh = p.receiver('lane', 3);
    const late = p.sender('lane', 2);
    late.channel.send(batchOf('late'));
    p.settle();
    const right = p.sender('lane', 3);
    right.channel.send(batchOf('right'));
    p.settle();
    expect(takeAll(fresh.channel)).toEqual([['right']]);
  });

  it('that was closed keeps nothing', () => {
    const p = pair();
    const [sender, receiver] = [p.sender(), p.receiver()];
    p.settle();
    for (let i = 0; i < 20; i++) sender.channel.send(batchOf(i));
    receiver.close();
    p.settle();
    sender.channel.send(batchOf(21));
    sender.close();
    sender.close();
    expect(sender.channel.depth).toBe(0);
  });

  it('stands still when the link is gone, and says so', async () => {
    const p = pair();
    const [sender, receiver] = [p.sender(), p.receiver()];
    p.settle();
    sender.channel.send(batchOf(1));
    p.settle();
    p.links[1].close();
    expect(await p.here.lost).toBeUndefined();
    expect(await p.there.lost).toBeUndefined();
    sender.channel.send(batchOf(2));
    sender.channel.signal(BARRIER(1));
    p.settle();
    expect(takeAll(receiver.channel)).toEqual([[1]]);
  });

  it('mail is in order with what the channels hand over', () => {
    const links = MemoryLink.pair();
    const seen: unknown[] = [];
    const here = new RemoteChannels(links[0]);
    const there = new RemoteChannels(links[1], { mail: (message) => void seen.push(message, receiver.channel.depth) });
    const sender = here.out({ name: 'lane', attempt: 1, from: 'a', to: 'b', wake() {}, failed() {} });
    const receiver = there.in({ name: 'lane', attempt: 1, wake() {} });
    const settle = () => {
      while (links[0].coming + links[1].coming > 0) {
        links[0].deliver();
        links[1].deliver();
      }
    };
    settle();
    sender.channel.send(batchOf(1));
    here.tell({ hello: new Map([[1, 2n]]) });
    sender.channel.send(batchOf(2));
    settle();
    expect(seen).toEqual([{ hello: new Map([[1, 2n]]) }, 1]);
    expect(() => here.tell(() => 1)).toThrow(expect.objectContaining({ code: 'STATE_NOT_SERIALIZABLE' }));
    expect(() => here.tell('x'.repeat(links[0].frameMax))).toThrow(expect.objectContaining({ code: 'RECORD_TOO_LARGE' }));
    here.tell('and on');
    settle();
    expect(seen.at(-2)).toBe('and on');
  });
});

describe('whatever the order of things', () => {
  it('nothing is lost, repeated or overtaken, the bounds hold, and a barrier passes', () => {
    for (let round = 0; round < rounds(40); round++) {
      const seed = SEED + round;
      const random = new Random(seed);
      const window = random.between(1, 9);
      const windowMax = window * random.between(1, 3);
      const p = pair({ window, windowMax });
      let most = 0;
      const count = random.between(1, 4);
      const lanes = Array.from({ length: count }, (_, i) => ({
        sender: undefined as RemoteEnd | undefined,
        receiver: undefined as RemoteEnd | undefined,
        sent: [] as unknown[],
        got: [] as unknown[],
        batches: 0,
        taken: 0,
        name: `lane ${i}`,
      }));
      const send = (lane: (typeof lanes)[number]): void => {
        const { channel } = lane.sender!;
        if (random.once(4)) {
          const event: Event = random.of<Event>([
            { kind: 'watermark', time: lane.sent.length },
            { kind: 'idle' },
            BARRIER(lane.sent.length, random.once(2) ? 0 : undefined),
            { kind: 'cancel', id: lane.sent.length },
          ]);
          channel.signal(event);
          lane.sent.push(event);
        } else if (channel.open) {
          const values = Array.from({ length: random.between(1, 5) }, (_, i) => lane.sent.length * 10 + i);
          channel.send(batchOf(...values));
          lane.sent.push(values);
          lane.batches += 1;
        }
      };
      const take = (lane: (typeof lanes)[number]): void => {
        const element = lane.receiver!.channel.take();
        if (element === undefined) return;
        if (!('kind' in element)) lane.taken += 1;
        lane.got.push('kind' in element ? element : element.values.slice(0, element.size));
      };
      for (let step = 0; step < 400; step++) {
        const lane = random.of(lanes);
        if (lane.sender === undefined && random.once(2)) lane.sender = p.sender(lane.name);
        if (lane.receiver === undefined && random.once(3)) lane.receiver = p.receiver(lane.name);
        switch (random.below(6)) {
          case 0:
          case 1:
            if (lane.sender !== undefined) send(lane);
            break;
          case 2:
            if (lane.receiver !== undefined) take(lane);
            break;
          case 3:
            random.of(p.links).deliver();
            break;
          case 4:
            if (random.once(5)) p.links[0].full = true;
            else if (random.once(2)) p.links[0].drain();
            break;
          case 5:
            if (lane.receiver !== undefined && random.once(4)) {
              if (lane.receiver.channel.withheld) lane.receiver.channel.release();
              else lane.receiver.channel.withheld = true;
            }
        }
        for (const { batches, taken } of lanes) most = Math.max(most, batches - taken);
      }
      expect(most, `seed ${seed}`).toBeLessThanOrEqual(windowMax + CREDIT);
      // A barrier passes, though nobody takes a thing and credit is withheld.
      for (const lane of lanes) {
        lane.sender ??= p.sender(lane.name);
        lane.receiver ??= p.receiver(lane.name);
        lane.sender.channel.signal(BARRIER(1e6));
        lane.sent.push(BARRIER(1e6));
      }
      p.links[0].full = random.once(2);
      p.settle();
      for (const lane of lanes) {
        expect(lane.sender!.channel.depth, `seed ${seed}`).toBe(0);
        while (lane.got.length < lane.sent.length) {
          const before = lane.got.length;
          take(lane);
          if (lane.got.length === before) break;
        }
        expect(lane.got, `seed ${seed}`).toEqual(lane.sent);
        if (lane.receiver!.channel.withheld) lane.receiver!.channel.release();
      }
      p.links[0].drain();
      p.settle();
      for (const lane of lanes) expect(lane.sender!.channel.open, `seed ${seed}`).toBe(true);
    }
  });
});
