// Ports that are free, below those that the system gives to outgoing connections: a server that was killed finds its port free when it comes back.

import { randomInt } from 'node:crypto';
import { createServer } from 'node:net';

const FROM = 15_000;
const TO = 32_000;

const given = new Set<number>();

export async function freePorts(count: number): Promise<number[]> {
  const ports: number[] = [];
  while (ports.length < count) {
    const port = randomInt(FROM, TO);
    if (given.has(port) || !(await isFree(port))) continue;
    given.add(port);
    ports.push(port);
  }
  return ports;
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer()
      .once('error', () => resolve(false))
      .listen(port, '127.0.0.1', () => probe.close(() => resolve(true)));
  });
}
