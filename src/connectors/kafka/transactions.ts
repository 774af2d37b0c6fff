// A transactional producer: a fence, and commits that are all or nothing (protocols 5, 12).
//
// Invariants:
//  X1  `fence` initialises the transactional id anew each time: whoever held it before, this object with an earlier epoch too, can commit nothing more, and what
//      it had open is aborted. It resolves when the coordinator has said so.
//  X2  one commit at a time; each partition is made known to the coordinator before a record is sent to it.
//  X3  after an error `commit` refuses until there is a new fence. What ended before the commit was asked for is aborted, as far as that can be done; otherwise
//      its outcome is unknown.
//  X4  asking again for the end of a transaction is safe under the same epoch: the coordinator answers the second time as the first. A broker that is gone costs no
//      restart.

import { persistently } from './attempts.ts';
import type { OutgoingRecord, ProducerOptions, TransactionalProducer } from './client.ts';
import { Delivery } from './delivery.ts';
import type { Directory } from './directory.ts';
import { answered, KafkaError } from './errors.ts';
import { addPartitionsCall, type Call, endTransactionCall, type Holder, initProducerCall } from './requests.ts';

export class Transactions implements TransactionalProducer {
  readonly #directory: Directory;
  readonly #transactionalId: string;
  readonly #timeoutMs: number;
  readonly #delivery: () => Delivery;
  #state: { readonly holder: Holder; readonly delivery: Delivery } | undefined;
  #busy = false;
  #closed = false;

  constructor(directory: Directory, options: ProducerOptions & { readonly transactionalId: string; readonly timeoutMs: number }) {
    this.#directory = directory;
    this.#transactionalId = options.transactionalId;
    this.#timeoutMs = options.timeoutMs;
    this.#delivery = () => new Delivery(directory, options);
    // What the options get wrong is said here.
    this.#delivery().close();
  }

  async fence(): Promise<void> {
    this.#state?.delivery.close();
    this.#state = undefined;
    const call = initProducerCall(this.#transactionalId, this.#timeoutMs);
    const { producerId, epoch } = await this.#coordinated(call, ({ error }) => error, 'its fence');
    const delivery = this.#delivery();
    delivery.begin(producerId, epoch);
    this.#state = { holder: { transactionalId: this.#transactionalId, producerId, epoch }, delivery };
  }

  async commit(records: readonly OutgoingRecord[], ending?: () => Promise<void> | undefined): Promise<void> {
    const state = this.#state;
    if (this.#busy || this.#closed || state === undefined) {
      const why = this.#busy ? 'while another is under way' : this.#closed ? 'after its close' : 'without a fence before it';
      throw new KafkaError('KAFKA_FAILED', `A commit of '${this.#transactionalId}' was asked for ${why}.`, {});
    }
    if (records.length === 0) return;
    this.#busy = true;
    let asked = false;
    try {
      const partitions = partitionsOf(records);
      await this.#coordinated(
        addPartitionsCall(state.holder, partitions),
        (answers) => answers.find(({ error }) => error !== 0 && error !== OPERATION_NOT_ATTEMPTED)?.error ?? 0,
        'its partitions',
      );
      await state.delivery.send(records);
      await ending?.();
      asked = true;
      await this.#coordinated(endTransactionCall(state.holder, true), (error) => error, 'its end');
    } catch (error) {
      this.#state = undefined;
      state.delivery.close();
      if (!asked) await this.#abort(state.holder);
      throw error;
    } finally {
      this.#busy = false;
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#state?.delivery.close();
    this.#state = undefined;
  }

  /** Readers wait for what is open until it expires; asked once, since the next fence does it, too. */
  async #abort(holder: Holder): Promise<void> {
    try {
      const coordinator = await this.#directory.coordinator('transaction', this.#transactionalId);
      await this.#directory.brokers.ask(coordinator, 'talk', endTransactionCall(holder, false));
    } catch (error) {
      // The error that led here is told; this one is of its kind.
      if (!(error instanceof KafkaError)) throw error;
    }
  }

  #coordinated<T>(call: Call<T>, errorOf: (answer: T) => number, what: string): Promise<T> {
    const { brokers, timeoutMs } = this.#directory;
    const key = this.#transactionalId;
    return persistently(
      brokers,
      timeoutMs,
      async () => {
        const answer = await brokers.ask(await this.#directory.coordinator('transaction', key), 'talk', call);
        const error = errorOf(answer);
        if (error !== 0) throw answered(error, `transactional id '${key}' for ${what}`);
        return answer;
      },
      (error) => this.#directory.renewCoordinator('transaction', key, error),
    );
  }
}

/** Of partitions that were named beside one that is refused. */
const OPERATION_NOT_ATTEMPTED = 55;

function partitionsOf(records: readonly OutgoingRecord[]): { topic: string; partition: number }[] {
  const named = new Map<string, Set<number>>();
  for (const { topic, partition } of records) {
    const partitions = named.get(topic);
    if (partitions === undefined) named.set(topic, new Set([partition]));
    else partitions.add(partition);
  }
  return [...named].flatMap(([topic, partitions]) => [...partitions].map((partition) => ({ topic, partition })));
}
