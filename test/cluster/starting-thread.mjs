// A thread that runs nothing: it says that it is there and whom it has been joined with. The one whose number is `fails` ends when it is started for the first time, the one
// whose number is `dies` when it has said that it is there, and before the others do.

import { setTimeout as sleep } from 'node:timers/promises';
import { parentPort, workerData } from 'node:worker_threads';

const { number, fails, dies = -1, started, joined } = workerData;
if (Atomics.add(started, number, 1) === 0 && number === fails) throw new Error('not now');
parentPort.on('message', (message) => {
  const { peer, ask } = message;
  Atomics.add(joined, number * 3 + peer, 1);
  parentPort.postMessage({ ask });
});
workerData.leader.on('message', () => {});
workerData.leader.on('close', () => process.exit());
if (dies >= 0 && number !== dies) await sleep(500);
parentPort.postMessage('ready');
if (number === dies) setTimeout(() => process.exit(), 50);
