import { describe, expect, it } from 'vitest';
import { RemoteChannels, type RemoteEnd } from '../../../src/cluster/transport/remote-channel.ts';
import { type Batch, releaseBatch, takeBatch } from '../../../src/runtime/batch.ts';
import { type Barrier, Channel, type Event } from '../../../src/runtime/channel.ts';
import { Gate } from '../../../src/runtime/gate.ts';
import { Random, rounds, SEED } from '../../random.ts';
import { MemoryLink } from './memory-link.ts';

// A task whose inputs come from two other hosts and from its own, with the gate that every task has. What a checkpoint holds of a channel is what the task had
// processed before its snapshot and what was recorded, and that must be all that was sent before the barrier, in order, and nothing else.

interface Lane {
  readonly channel: Channel;
  readonly sent: number[];
  readonly processed: number[];
  /** How much had been sent when the barrier of that id was. */
  readonly cuts: Map<number, number>;
  announced: number;
}

interface Checkpoint {
  readonly processed: number[];
  readonly recorded: number[][];
  whole: boolean;
}

class Receiver {
  readonly gate: Gate;
  readonly checkpoints = new Map<number, Checkpoint>();
  readonly givenUp = new Set<number>();
  readonly #lanes: readonly Lane[];

  constructor(channels: readonly Channel[], lanes: readonly Lane[], blocking: boolean) {
    this.#lanes = lanes;
    this.gate = new Gate({
      channels,
      watermark: Number.NEGATIVE_INFINITY,
      blocking,
      forced: channels.map(() => false),
      announced: (barrier) => {
        if (barrier.unaligned !== undefined) this.gate.hurried = barrier;
      },
      recorded: (id, whole) => {
        const checkpoint = this.checkpoints.get(id);
        if (checkpoint === undefined) return;
        if (whole) checkpoint.whole = true;
        else this.checkpoints.delete(id);
      },
    });
  }

  /** One turn. False where there was nothing to do. */
  turn(): boolean {
    const { hurried } = this.gate;
    if (hurried !== undefined) {
      this.#follow(this.gate.hurry(hurried));
      return true;
    }
    const element = this.gate.poll();
    if (element === undefined) return false;
    if (!('kind' in element)) {
      for (let i = 0; i < element.size; i++) this.#lanes[this.gate.channel]!.processed.push(element.values[i] as number);
      releaseBatch(element);
    } else if (element.kind === 'barrier' || element.kind === 'cancel' || element.kind === 'end') this.#follow(this.gate.align(element));
    return true;
  }

  giveUp(id: number): true {
    this.#follow(this.gate.abort(id));
    this.givenUp.add(id);
    return true;
  }

  #follow(actions: ReturnType<Gate['align']>): void {
    for (const action of actions) {
      if (action.kind === 'block') this.gate.block(action.channel);
      else if (action.kind === 'unblock') this.gate.unblock();
      else if (action.kind === 'snapshot') this.#snapshot(action.id).whole = true;
      else if (action.kind === 'recorded') this.checkpoints.get(action.id)!.whole = true;
      else if (action.kind === 'record') {
        const { recorded } = this.#snapshot(action.id);
        for (const index of action.channels) {
          const recorder = {
            batch: (batch: Batch, from: number) => void recorded[index]!.push(...(batch.values.slice(from, batch.size) as number[])),
            event: () => {},
          };
          const channel = this.gate.channels[index]!;
          channel.record(recorder, action.until.has(index) ? action.id : undefined);
          if (!action.until.has(index)) channel.recorder = recorder;
        }
      }
    }
  }

  #snapshot(id: number): Checkpoint {
    const made: Checkpoint = { processed: this.#lanes.map(({ processed }) => processed.length), recorded: this.#lanes.map(() => []), whole: false };
    this.checkpoints.set(id, made);
    return made;
  }
}

function oneRound(seed: number): { checkpoints: number; recorded: number } {
  const random = new Random(seed);
  const pairs = Array.from({ length: random.between(1, 2) }, () => MemoryLink.pair());
  const window = random.between(1, 8);
  const ends: RemoteEnd[] = [];
  const lanes: Lane[] = [];
  const channels: Channel[] = [];
  const lane = (sender: Channel, receiver: Channel): void => {
    lanes.push({ channel: sender, sent: [], processed: [], cuts: new Map(), announced: 0 });
    channels.push(receiver);
  };
  for (const [here, there] of pairs) {
    const [out, into] = [new RemoteChannels(here, { window }), new RemoteChannels(there, { window })];
    for (let i = random.between(1, 2); i > 0; i--) {
      const options = { name: `lane ${i}`, attempt: 1, from: 'a', to: 'b', wake() {}, failed: (error: Error) => expect.fail(error.message) };
      const [sender, receiver] = [out.out(options), into.in(options)];
      ends.push(sender, receiver);
      lane(sender.channel, receiver.channel);
    }
  }
  if (random.once(2)) {
    const local = new Channel(
      () => {},
      () => {},
    );
    lane(local, local);
  }
  const receiver = new Receiver(channels, lanes, true);
  const busy = random.once(2) ? 12 : 2;
  let newest = 0;
  const kinds = new Map<number, Event & { kind: 'barrier' }>();
  const announce = (of: Lane, upTo: number): void => {
    while (of.announced < upTo) {
      const id = ++of.announced;
      of.cuts.set(id, of.sent.length);
      of.channel.signal(kinds.get(id)!);
    }
  };
  for (let step = 0; step < 500; step++) {
    const of = random.of(lanes);
    switch (random.below(7)) {
      case 0:
      case 1:
      case 2:
        if (of.channel.open) {
          const batch = takeBatch(false);
          for (let i = random.between(1, 4); i > 0; i--) {
            batch.add(of.sent.length, 0);
            of.sent.push(of.sent.length);
          }
          of.channel.send(batch);
        } else if (random.once(9)) of.channel.signal({ kind: 'watermark', time: step });
        break;
      case 3:
        // The receiver has most work in half of the rounds.
        if (random.once(busy)) receiver.turn();
        break;
      case 4:
        for (const link of random.of(pairs)) if (random.once(2)) link.deliver();
        break;
      case 5:
        // The coordinator triggers the next one when the last one is whole, or was given up.
        if (random.once(4) && (newest === 0 || receiver.checkpoints.get(newest)?.whole === true || (random.once(8) && receiver.giveUp(newest)))) {
          newest += 1;
          const barrier: Barrier = { id: newest, startedAt: 0, stop: false, unaligned: random.once(4) ? undefined : 0 };
          kinds.set(newest, { kind: 'barrier', barrier });
        }
        if (of.announced < newest) announce(of, of.announced + 1);
        break;
      case 6:
        if (random.once(6)) {
          const [here] = random.of(pairs);
          if (here.full) here.drain();
          else here.full = true;
        }
    }
  }
  for (const each of lanes) announce(each, newest);
  for (const [here] of pairs) here.drain();
  for (let again = true; again; ) {
    again = receiver.turn();
    for (const link of pairs.flat()) {
      again ||= link.coming > 0;
      link.deliver();
    }
  }
  let recorded = 0;
  const about = `seed ${seed}`;
  for (const [index, { sent, processed }] of lanes.entries()) expect(processed, `${about}, lane ${index}`).toEqual(sent);
  for (const [id, checkpoint] of receiver.checkpoints) {
    if (receiver.givenUp.has(id)) continue;
    expect(checkpoint.whole, `${about}, checkpoint ${id} is never whole`).toBe(true);
    for (const [index, { sent, cuts }] of lanes.entries()) {
      const holds = [...sent.slice(0, checkpoint.processed[index]!), ...checkpoint.recorded[index]!];
      expect(holds, `${about}, checkpoint ${id}, lane ${index}`).toEqual(sent.slice(0, cuts.get(id)!));
      recorded += checkpoint.recorded[index]!.length;
    }
  }
  if (newest > 0) expect(receiver.checkpoints.has(newest), `${about}: the last one has nothing behind it`).toBe(true);
  for (const end of ends) end.close();
  return { checkpoints: receiver.checkpoints.size, recorded };
}

describe('a checkpoint over channels between hosts', () => {
  it('holds what was sent before the barrier, aligned or not, whatever is under way', () => {
    let [checkpoints, recorded] = [0, 0];
    for (let round = 0; round < rounds(100); round++) {
      const of = oneRound(SEED + round);
      checkpoints += of.checkpoints;
      recorded += of.recorded;
    }
    // It was about something: checkpoints were made, and some of them with records in flight.
    expect(checkpoints).toBeGreaterThan(0);
    expect(recorded).toBeGreaterThan(0);
  });
});
