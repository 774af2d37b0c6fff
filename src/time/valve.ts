// The watermark valve of a gate: what the watermarks and idleness of all input channels say together (semantics 4).
//
// Invariants:
//  V1  Channels start active, aligned, at −∞.
//  V2  The output is the minimum over active, aligned channels and only grows.
//  V3  A channel that wakes from idleness rejoins only once its watermark has reached the last output.
//  V4  When all channels are idle the output becomes the maximum over all, then idle; whichever channel went idle last (FLINK-40475).
//  V5  A channel that has ended (+∞) counts as idle until all have: that the others are idle is not the end of time. An end is heard of an idle channel too.

export interface ValveOutput {
  /** Undefined where it did not grow. */
  readonly watermark: number | undefined;
  /** Undefined where it did not change. */
  readonly idle: boolean | undefined;
}

const NOTHING: ValveOutput = { watermark: undefined, idle: undefined };

export class Valve {
  readonly #watermarks: Float64Array;
  readonly #idle: Uint8Array;
  readonly #aligned: Uint8Array;
  readonly #ended: Uint8Array;
  #output: number;
  #outputIdle = false;

  constructor(channels: number, start = Number.NEGATIVE_INFINITY) {
    this.#watermarks = new Float64Array(channels).fill(Number.NEGATIVE_INFINITY);
    this.#idle = new Uint8Array(channels);
    this.#aligned = new Uint8Array(channels).fill(1);
    this.#ended = new Uint8Array(channels);
    this.#output = start;
  }

  get output(): number {
    return this.#output;
  }

  /** What a channel has said last; +∞ of one that has ended. */
  heard(channel: number): { readonly watermark: number; readonly idle: boolean } {
    if (this.#ended[channel] === 1) return { watermark: Number.POSITIVE_INFINITY, idle: false };
    return { watermark: this.#watermarks[channel]!, idle: this.#idle[channel] === 1 };
  }

  /** Time has come so far by another way: the output does not fall behind it. Before any channel has spoken. */
  raise(output: number): void {
    if (output > this.#output) this.#output = output;
  }

  watermark(channel: number, time: number): ValveOutput {
    if (this.#ended[channel] === 1) return NOTHING;
    if (time === Number.POSITIVE_INFINITY) return this.#end(channel);
    if (this.#idle[channel] === 1 || time <= this.#watermarks[channel]!) return NOTHING;
    this.#watermarks[channel] = time;
    if (this.#aligned[channel] === 0) {
      if (time < this.#output) return NOTHING;
      this.#aligned[channel] = 1;
    }
    return this.#advance(undefined);
  }

  idle(channel: number): ValveOutput {
    if (this.#idle[channel] === 1 || this.#ended[channel] === 1) return NOTHING;
    this.#idle[channel] = 1;
    this.#aligned[channel] = 0;
    return this.#settle();
  }

  #end(channel: number): ValveOutput {
    this.#ended[channel] = 1;
    this.#aligned[channel] = 0;
    this.#idle[channel] = 1;
    if (this.#ended.some((ended) => ended === 0)) return this.#settle();
    const woke = this.#outputIdle;
    this.#outputIdle = false;
    this.#output = Number.POSITIVE_INFINITY;
    return { watermark: Number.POSITIVE_INFINITY, idle: woke ? false : undefined };
  }

  active(channel: number): ValveOutput {
    if (this.#idle[channel] === 0 || this.#ended[channel] === 1) return NOTHING;
    this.#idle[channel] = 0;
    this.#aligned[channel] = this.#watermarks[channel]! >= this.#output ? 1 : 0;
    const woke = this.#outputIdle;
    this.#outputIdle = false;
    return this.#advance(woke ? false : undefined);
  }

  #settle(): ValveOutput {
    if (this.#idle.some((idle) => idle === 0)) return this.#advance(undefined);
    const newest = this.#watermarks.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
    const grew = newest > this.#output;
    if (grew) this.#output = newest;
    const wasIdle = this.#outputIdle;
    this.#outputIdle = true;
    return { watermark: grew ? newest : undefined, idle: wasIdle ? undefined : true };
  }

  #advance(idle: boolean | undefined): ValveOutput {
    let least = Number.POSITIVE_INFINITY;
    let any = false;
    for (let i = 0; i < this.#watermarks.length; i++) {
      if (this.#aligned[i] === 1) {
        any = true;
        if (this.#watermarks[i]! < least) least = this.#watermarks[i]!;
      }
    }
    if (!any || least <= this.#output) return idle === undefined ? NOTHING : { watermark: undefined, idle };
    this.#output = least;
    return { watermark: least, idle };
  }
}
