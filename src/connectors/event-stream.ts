// The format of server-sent events, as the WHATWG has it: blocks of text in, events out.
//
// Invariant E1: an event is given when its empty line has come, and not before; what stands behind the last one when the stream ends is dropped, since it will come again.

/** One event. */
export interface ServerSentEvent {
  /** 'message' where the server names none. */
  readonly type: string;
  readonly data: string;
  /** The newest id that the server has given by then; empty: none. */
  readonly id: string;
}

export class EventStream {
  #rest = '';
  #begun = false;
  #type = '';
  #data: string[] = [];
  #id: string;
  /** Asked for by the server: how long to wait before it is connected again. */
  retryMs: number | undefined;

  constructor(lastId = '') {
    this.#id = lastId;
  }

  push(block: string): ServerSentEvent[] {
    let text = this.#rest + block;
    if (!this.#begun && text !== '') {
      this.#begun = true;
      if (text.startsWith('\ufeff')) text = text.slice(1);
    }
    const events: ServerSentEvent[] = [];
    let at = 0;
    for (;;) {
      const end = endOfLine(text, at);
      if (end === undefined) break;
      const event = this.#line(text.slice(at, end.at));
      if (event !== undefined) events.push(event);
      at = end.next;
    }
    this.#rest = text.slice(at);
    return events;
  }

  /** What waits for its end, in characters. */
  get pending(): number {
    return this.#rest.length + this.#data.reduce((sum, line) => sum + line.length, 0);
  }

  #line(line: string): ServerSentEvent | undefined {
    if (line === '') {
      const event = this.#data.length === 0 ? undefined : { type: this.#type === '' ? 'message' : this.#type, data: this.#data.join('\n'), id: this.#id };
      this.#type = '';
      this.#data = [];
      return event;
    }
    const colon = line.indexOf(':');
    if (colon === 0) return undefined;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(line[colon + 1] === ' ' ? colon + 2 : colon + 1);
    if (field === 'data') this.#data.push(value);
    else if (field === 'event') this.#type = value;
    else if (field === 'id' && !value.includes('\0')) this.#id = value;
    else if (field === 'retry' && /^\d+$/.test(value)) this.retryMs = Number(value);
    return undefined;
  }
}

/** A carriage return at the end of the text may be half of an end. */
function endOfLine(text: string, from: number): { readonly at: number; readonly next: number } | undefined {
  for (let at = from; at < text.length; at += 1) {
    const c = text.charCodeAt(at);
    if (c === 10) return { at, next: at + 1 };
    if (c !== 13) continue;
    if (at + 1 === text.length) return undefined;
    return { at, next: text.charCodeAt(at + 1) === 10 ? at + 2 : at + 1 };
  }
  return undefined;
}
