// Replicas of a service in one process: what jobs read and write is the test's, and what their loggers were told.

import { join } from 'node:path';
import { job, type Logger, type RunningJob, type RunOptions } from 'millrace';
import { type ZooKeeper, type ZooKeeperOptions, zookeeper } from 'millrace/zookeeper';
import { expect, onTestFinished } from 'vitest';
import { Conditions, Feed, Store, temporaryFolder } from '../protocols/lab.ts';
import { zookeeperForTests } from '../services/zookeeper.ts';
import { freshRoot } from './zookeeper/clients.ts';

/** What a logger was told. */
export class Lines {
  readonly lines: string[] = [];
  readonly #conditions = new Conditions();
  readonly logger: Logger;

  constructor() {
    const say = (fields: object | string, text?: string): void => {
      this.lines.push(typeof fields === 'string' ? fields : (text ?? ''));
      this.#conditions.changed();
    };
    this.logger = { debug: () => {}, info: say, warn: say, error: say };
  }
  until(what: RegExp): Promise<void> {
    return this.#conditions.until(() => this.lines.some((line) => what.test(line)));
  }
}

/** A job whose input and output the test holds, and replicas of it. */
export class Cluster {
  readonly feed = new Feed<number>({ bounded: false, splits: ['a', 'b'] });
  readonly store = new Store<{ key: string; n: number }>();
  readonly folder: string;
  readonly connect: string;
  readonly root: string;
  readonly job;

  constructor(folder: string, connect: string, root = freshRoot(), name = 'counting') {
    this.folder = folder;
    this.connect = connect;
    this.root = root;
    this.job = job(name, (env) => {
      env
        .source('in', this.feed)
        .map((n) => ({ key: `k${n % 2}`, n: 1 }))
        .keyBy((v) => v.key)
        .reduce('counts', (l, r) => ({ key: l.key, n: l.n + r.n }))
        .sink('out', this.store);
    });
  }

  static async open(root?: string): Promise<Cluster> {
    return new Cluster(await temporaryFolder(), await zookeeperForTests(), root);
  }
  /** Another job of the same cluster. */
  beside(name: string): Cluster {
    return new Cluster(this.folder, this.connect, this.root, name);
  }

  zookeeper(options: Partial<ZooKeeperOptions> = {}): ZooKeeper {
    const zk = zookeeper({ connect: this.connect, root: this.root, sessionTimeout: 8000, ...options });
    onTestFinished(() => zk.close());
    return zk;
  }

  options(changed: RunOptions = {}): RunOptions {
    return {
      cluster: this.zookeeper(),
      module: import.meta.url,
      checkpoints: { directory: join(this.folder, 'checkpoints'), every: 20 },
      restarts: { max: 20, within: 60_000, backoff: { initial: 10, max: 100 } },
      ...changed,
    };
  }

  start(changed: RunOptions = {}): Promise<RunningJob> {
    return this.job.start(this.options(changed));
  }

  /** The leader comes first. */
  async replicas(count: number): Promise<RunningJob[]> {
    const replicas = [await this.start()];
    for (let i = 1; i < count; i++) replicas.push(await this.start());
    return replicas;
  }

  push(numbers: readonly number[]): void {
    for (const n of numbers) this.feed.push([n], undefined, n % 2 === 0 ? 'a' : 'b');
  }
  /** Every count of every key, once. */
  async counted(each: number): Promise<void> {
    await this.store.until((records) => records.filter(({ n }) => n === each).length === 2);
    const seen = this.store.records.map(({ key, n }) => `${key} ${n}`).toSorted();
    const wanted = ['k0', 'k1'].flatMap((key) => Array.from({ length: each }, (_, i) => `${key} ${i + 1}`));
    expect(seen).toEqual(wanted.toSorted());
  }
}
