// millrace/zookeeper: configurations, service discovery, locks and barriers, and the `cluster` of RunOptions.

export type { Barrier } from './barrier.ts';
export type { Lock } from './lock.ts';
export type { Endpoint } from './services.ts';
export { type WaitOptions, type ZooKeeper, type ZooKeeperOptions, zookeeper } from './zookeeper.ts';
