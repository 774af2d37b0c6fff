// A process in a place of its own, for test/cluster/networks.test.ts: `<id> <host> <port>`. It answers each byte that comes with one. What it is told, a line each:
// `dial <host:port>` opens a connection, greets as a worker with its id would, and asks; `ask <host:port>` asks over that connection again. It says `listens`, and
// `answered <host:port>` or `failed <host:port>`.

import { connect, createServer, type Socket } from 'node:net';
import { createInterface } from 'node:readline';

const [id = '', host = '', port = ''] = process.argv.slice(2);
const say = (line: string): void => void process.stdout.write(`${line}\n`);

/** As doors read it (doors.ts). */
function greeting(): Buffer {
  const said = Buffer.from(JSON.stringify({ worker: id }));
  const length = Buffer.alloc(4);
  length.writeUInt32LE(said.length);
  return Buffer.concat([Buffer.alloc(38), length, said]);
}

createServer((socket) => {
  socket.on('error', () => {}).on('data', () => socket.write('!'));
}).listen(Number(port), host, () => say('listens'));

const connections = new Map<string, Socket>();
createInterface(process.stdin).on('line', (line) => {
  const [command, to = ''] = line.split(' ');
  if (command === 'ask') {
    connections.get(to)!.write('?');
    return;
  }
  const [there, at] = to.split(':');
  const socket = connect({ host: there!, port: Number(at) });
  socket.on('error', () => say(`failed ${to}`)).on('data', () => say(`answered ${to}`));
  socket.write(greeting());
  connections.set(to, socket);
});
