// What a leader and a worker do where ZooKeeper, or a connection, goes away for a moment between two of their steps.

import { describe, expect, it, onTestFinished } from 'vitest';
import { type CallMail, Calls } from '../../src/cluster/calls.ts';
import { Leader, type LeaderOptions } from '../../src/cluster/leader.ts';
import { Connections } from '../../src/cluster/transport/connections.ts';
import { Worker } from '../../src/cluster/worker.ts';
import { unreachable } from '../../src/cluster/zookeeper/errors.ts';
import { SILENT } from '../../src/graph/context.ts';
import { operatorOf } from '../../src/operators/operator-of.ts';
import { systemIo } from '../../src/runtime/io.ts';
import { Conditions, rejection } from '../protocols/lab.ts';
import { NO_ZOOKEEPER } from '../services/zookeeper.ts';
import { clientsForTests } from './zookeeper/clients.ts';

describe.skipIf(NO_ZOOKEEPER)('a process of a cluster', () => {
  const client = clientsForTests();

  it('that cannot read what it should run, as soon as it leads, stands for election again', async () => {
    const zk = await client();
    const conditions = new Conditions();
    const epochs: number[] = [];
    const ending = new AbortController();
    let reads = 0;
    const leader = new Leader({
      client: zk,
      store: {
        jobs: async () => [],
        async *followed(signal: AbortSignal) {
          reads += 1;
          if (reads === 1) throw unreachable('zk:2181', 10_000);
          conditions.changed();
          yield [];
          if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
        },
      },
      self: { id: 'a', address: 'a:1' },
      offered: new Map(),
      elected: (epoch: number) => epochs.push(epoch),
      members: () => [],
      io: systemIo(),
      log: SILENT,
    } as unknown as LeaderOptions);
    const standing = leader.stand(ending.signal);
    await conditions.until(() => reads === 2);
    expect(epochs).toEqual([1, 2]);
    ending.abort();
    await standing;
  });

  it('gives a question up whose connection was replaced before anybody saw it go', async () => {
    const zk = await client();
    const heard = new Conditions();
    let asked = 0;
    const worker = await Worker.open({
      client: zk,
      id: 'z',
      jobs: new Map(),
      operators: operatorOf,
      version: '',
      epoch: () => 0,
      heard: () => {},
      io: systemIo(),
      log: SILENT,
    });
    onTestFinished(() => worker.close());
    const [host, port] = worker.member.address.split(':');
    // One that dials anew while the other side holds its old connection for alive, as behind a network that was gone.
    const dial = async (): Promise<void> => {
      const connections = new Connections({
        hello: () => ({ cluster: '', worker: 'a', epoch: 0, plans: [] }),
        log: SILENT,
        mail: () => {
          asked += 1;
          heard.changed();
        },
      });
      onTestFinished(() => connections.close());
      await connections.connect({ worker: 'z', host: host!, port: Number(port) });
    };
    const calls = new Calls({
      tell: (to, message: CallMail) => worker.tell(to, message),
      lost: async (to, over, signal) => {
        while (!signal.aborted && worker.over(to) === over) await worker.changed(signal);
      },
      answer: async () => undefined,
    });
    await dial();
    const question = rejection(calls.ask({ id: 'a', address: 'a:1' }, 'savepoint', {}));
    await heard.until(() => asked === 1);
    await dial();
    expect(await question).toMatchObject({ code: 'LEADER_UNREACHABLE', message: expect.stringMatching(/connection is lost/) });
    expect(worker.reaches('a')).toBe(true);
  });
});
