// What is known of a cluster: who leads which partition, who coordinates which group or transactional id; asked for when it is missing or was wrong.
//
// Invariant: one request for metadata at a time of the same topics; who comes while one is under way gets the answer of the next, which was sent after it came.

import { persistently } from './attempts.ts';
import type { Brokers } from './brokers.ts';
import { answered, type KafkaError } from './errors.ts';
import { type CoordinatorKind, findCoordinatorCall, type MetadataAnswer, metadataCall, type TopicAnswer } from './requests.ts';

export class Directory {
  readonly brokers: Brokers;
  readonly timeoutMs: number;
  readonly #topics = new Map<string, TopicAnswer>();
  readonly #coordinators = new Map<string, number>();
  #controller = -1;
  #refreshing: Promise<unknown> = Promise.resolve();
  #next: Promise<void> | undefined;

  constructor(brokers: Brokers, timeoutMs: number) {
    this.brokers = brokers;
    this.timeoutMs = timeoutMs;
  }

  /** Of the topics, or of all of them; tried until the time is over. `operations`: with what we may do with them. */
  async metadata(topics: readonly string[] | undefined, operations = false): Promise<readonly TopicAnswer[]> {
    const answer = await persistently(
      this.brokers,
      this.timeoutMs,
      () => this.#ask(topics, operations),
      () => {},
    );
    return answer.topics;
  }

  /** The leader's number; asks where it is not known. Throws a transient error where there is none at present. */
  async leader(topic: string, partition: number): Promise<number> {
    const known = this.knownLeader(topic, partition);
    if (known !== undefined) return known;
    await this.#ask([topic]);
    const found = this.knownLeader(topic, partition);
    if (found !== undefined) return found;
    const { error, partitions } = this.#topics.get(topic) ?? { error: UNKNOWN_TOPIC, partitions: [] };
    const there = partitions.some((one) => one.partition === partition);
    throw answered(there ? LEADER_NOT_AVAILABLE : error === 0 ? UNKNOWN_TOPIC : error, `the question who leads '${topic}' ${partition}`);
  }

  knownLeader(topic: string, partition: number): number | undefined {
    const leader = this.#topics.get(topic)?.partitions.find((one) => one.partition === partition)?.leader;
    return leader === undefined || leader < 0 ? undefined : leader;
  }

  /** Of all topics that are known, once for all who ask at a time. Its failure is no news: what stands is used. */
  async refresh(): Promise<void> {
    this.#next ??= this.#refreshing.then(async () => {
      this.#next = undefined;
      const refreshed = this.#ask([...this.#topics.keys()]).catch(() => undefined);
      this.#refreshing = refreshed;
      await refreshed;
    });
    await this.#next;
  }

  /** Who takes what only the controller does; -1: whoever. */
  get controller(): number {
    return this.#controller;
  }

  async coordinator(kind: CoordinatorKind, key: string): Promise<number> {
    const known = this.#coordinators.get(`${kind} ${key}`);
    if (known !== undefined && this.brokers.knows(known)) return known;
    const { error, message, node } = await this.brokers.ask('any', 'talk', findCoordinatorCall(kind, key));
    if (error !== 0) throw answered(error, `the question who coordinates ${kind} '${key}'`, message);
    if (!this.brokers.knows(node)) await this.refresh();
    this.#coordinators.set(`${kind} ${key}`, node);
    return node;
  }

  forgetCoordinator(kind: CoordinatorKind, key: string): void {
    this.#coordinators.delete(`${kind} ${key}`);
  }

  /** What an error asks for, of a call to a coordinator. */
  async renewCoordinator(kind: CoordinatorKind, key: string, error: KafkaError): Promise<void> {
    if (error.again === 'later') return;
    this.forgetCoordinator(kind, key);
    if (error.again === 'metadata') await this.refresh();
  }

  async #ask(topics: readonly string[] | undefined, operations = false): Promise<MetadataAnswer> {
    const answer = await this.brokers.ask('any', 'talk', metadataCall(topics, operations));
    this.brokers.learn(answer.brokers);
    this.#controller = answer.controller;
    for (const topic of answer.topics) this.#topics.set(topic.topic, topic);
    return answer;
  }
}

const UNKNOWN_TOPIC = 3;
const LEADER_NOT_AVAILABLE = 5;
