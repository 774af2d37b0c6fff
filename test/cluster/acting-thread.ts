// A thread with a host of acting-job.ts, which cuts its links to other threads when it is told to by shared memory.

import { type MessagePort, parentPort, workerData } from 'node:worker_threads';
import { memory } from 'millrace';
import { definitionOf } from '../../src/api/job.ts';
import { Host } from '../../src/cluster/host.ts';
import type { ThreadAsk } from '../../src/cluster/thread-mail.ts';
import type { Link } from '../../src/cluster/transport/link.ts';
import { threadLink } from '../../src/cluster/transport/thread-link.ts';
import { operatorOf } from '../../src/operators/operator-of.ts';
import { systemIo } from '../../src/runtime/io.ts';
import { acting } from './acting-job.ts';

const { number, leader, cut } = workerData as { readonly number: number; readonly leader: MessagePort; readonly cut: Int32Array };
const links: Link[] = [];
const host = new Host({
  job: definitionOf(acting),
  operators: operatorOf,
  number,
  backend: memory(),
  storage: undefined,
  io: systemIo(),
  leader: threadLink(leader, { peer: 'the test' }),
});
parentPort!.on('message', (mail: ThreadAsk) => {
  if (mail.kind !== 'join') return;
  const { peer, port, by, ask } = mail;
  const link = threadLink(port, { peer: `thread ${peer}` });
  links.push(link);
  host.join(peer, link, by);
  parentPort!.postMessage({ ask });
});
const look = setInterval(() => {
  if (Atomics.compareExchange(cut, number, 1, 0) === 1) for (const link of links.splice(0)) link.close();
}, 10);
parentPort!.postMessage('ready');
await host.ended;
clearInterval(look);
process.exit(0);
