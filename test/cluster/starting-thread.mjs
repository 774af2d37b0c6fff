// A thread that runs nothing: it says that it is there and whom it has been joined with. The one whose number is `fails` ends when it is started for the first time.

import { parentPort, workerData } from 'node:worker_threads';

const { number, fails, started, joined } = workerData;
if (Atomics.add(started, number, 1) === 0 && number === fails) throw new Error('not now');
parentPort.on('message', ({ peer }) => {
  Atomics.add(joined, number * 3 + peer, 1);
  parentPort.postMessage({ joined: peer });
});
workerData.leader.on('message', () => {});
workerData.leader.on('close', () => process.exit());
parentPort.postMessage('ready');
