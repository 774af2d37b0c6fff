// A writer that writes at least once: an idempotent producer, without transactions and markers.
//
// `write` resolves when all of it is stored; what comes meanwhile waits in the task, which takes no more beyond its own bound, and goes out together.

import { MillraceError } from '../../errors.ts';
import type { SinkWriter } from '../../graph/sink.ts';
import type { Io } from '../../runtime/io.ts';
import type { OutgoingRecord, Producer } from './client.ts';
import type { KafkaRow, Rows } from './rows.ts';
import type { SinkSession } from './sink-session.ts';

/** Ms after which a topic is looked at again, since it may have grown. */
const TOPICS_MS = 30_000;

export interface PlainWriterOptions<T> {
  readonly session: SinkSession;
  readonly rows: Rows<T>;
  /** Every topic that is met is added. */
  readonly met: Set<string>;
  readonly uid: string;
  readonly io: Io;
  readonly producer: Producer;
  /** Gives the session back. */
  readonly release: () => Promise<void>;
}

export class KafkaPlainWriter<T> implements SinkWriter<T> {
  readonly #options: PlainWriterOptions<T>;
  #looked: number;
  #closed = false;

  constructor(options: PlainWriterOptions<T>) {
    this.#options = options;
    this.#looked = options.io.elapsed();
  }

  async write(values: readonly T[], timestamps: readonly number[]): Promise<void> {
    const { session, rows, met, uid, io, producer } = this.#options;
    if (this.#closed) throw new MillraceError('SINK_FAILED', 'The Kafka writer is closed.', { todo: 'Open the sink again.', uid });
    const waiting: KafkaRow[] = [];
    for (let i = 0; i < values.length; i++) waiting.push(rows.encode(values[i]!, timestamps[i]!));
    const now = io.elapsed();
    if (rows.meeting || now - this.#looked > TOPICS_MS) {
      this.#looked = now;
      for (const topic of rows.met) met.add(topic);
      await session.topics.refresh(
        waiting.map((row) => rows.topicOf(row)),
        uid,
      );
      rows.check();
    }
    const at = io.clock.now();
    const outgoing: OutgoingRecord[] = [];
    for (const row of waiting) outgoing.push(rows.outgoing(row, at));
    await io.step('sink.kafka.produce');
    await producer.send(outgoing);
  }

  /** What was written is stored: `write` has resolved. */
  async flush(): Promise<void> {}

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    try {
      await this.#options.producer.close();
    } finally {
      await this.#options.release();
    }
  }
}
