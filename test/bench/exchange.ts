// One hash exchange between two hosts: one JSON line for two processes (TCP on this machine) and one for two threads.
// `exchange.ts [--between processes|threads] [--events n] [--runs n] [--rate n]`; without --between both are measured. With --rate so many records are sent a second,
// and how long each was on its way is measured instead: from when it is made, until the receiver takes it, by the clock of this machine.
//
// The sender makes a new record of five fields for each, and adds it to the output of a keyed edge with two instances at the other host, which take batches and
// add a field up. Nothing else runs: this is what the exchange costs, with the record's making and reading. The time goes from the first record that is sent to
// the last one that was taken, as the receiver says.

import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { isMainThread, MessageChannel, type MessagePort, Worker, workerData } from 'node:worker_threads';
import { Connections } from '../../src/cluster/transport/connections.ts';
import { RemoteChannels, type RemoteEnd } from '../../src/cluster/transport/remote-channel.ts';
import { threadLink } from '../../src/cluster/transport/thread-link.ts';
import { releaseBatch } from '../../src/runtime/batch.ts';
import { openOutput } from '../../src/runtime/output.ts';
import { print, type Quantiles, quantiles, rounded, tell } from './harness/figures.ts';

const INSTANCES = 2;
const SLICE_MS = 4;

interface Sold {
  user: string;
  item: number;
  price: number;
  time: number;
  kind: string;
}

const USERS = Array.from({ length: 10_000 }, (_, i) => `user-${i}`);
const KINDS = ['view', 'click', 'buy'];

const made = (i: number): Sold => ({
  user: USERS[(Math.imul(i, 7919) >>> 0) % USERS.length]!,
  item: Math.imul(i, 31) & 0xffff,
  price: (i % 10_000) / 100,
  time: 1_700_000_000_000 + i,
  kind: KINDS[i % 3]!,
});

/** Milliseconds since the epoch, finely: the same in all processes of this machine, nearly. */
const wallClock = (): number => performance.timeOrigin + performance.now();

/** Sends so many records, at a pace or as fast as it can, and returns when all are in the outputs. */
async function send(channels: RemoteChannels, events: number, run: number, rate: number | undefined): Promise<void> {
  let wake = (): void => {};
  const ends = Array.from({ length: INSTANCES }, (_, i) =>
    channels.out({
      name: `lane ${i}`,
      attempt: run,
      from: 'sender',
      to: 'receiver',
      wake: () => wake(),
      failed: (error) => {
        throw error;
      },
    }),
  );
  const output = openOutput({
    exchange: 'hash',
    key: (value) => (value as Sold).user,
    partition: undefined,
    random: Math.random,
    channels: ends.map(({ channel }) => channel),
    maxParallelism: 128,
    control: { full: false },
    name: 'exchange',
    to: 'receiver',
  });
  const begun = performance.now();
  for (let i = 0; rate !== undefined && i < events; ) {
    // What is due by now, as a source gives it whenever it looks.
    const due = Math.min(events, Math.floor(((performance.now() - begun) * rate) / 1000));
    const time = wallClock();
    for (; i < due && output.open; i++) output.add(made(i), time);
    output.flush(true);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  for (let i = rate === undefined ? 0 : events; i < events; ) {
    const slice = performance.now() + SLICE_MS;
    while (output.open && i < events && performance.now() < slice) {
      const next = Math.min(events, i + 256);
      for (; i < next; i++) output.add(made(i), i);
      output.flush(false);
    }
    if (!output.open)
      await new Promise<void>((resolve) => {
        wake = resolve;
        if (output.open) resolve();
      });
    await new Promise(setImmediate);
  }
  output.signal({ kind: 'end' });
}

/** Takes all of a run; `done` is given what was counted. */
function receive(
  channels: RemoteChannels,
  run: number,
  paced: boolean,
  done: (figures: { records: number; total: number; ms: number; cpu: number; latencyMs?: Quantiles | undefined }) => void,
): void {
  let [records, total, ended, begun, scheduled] = [0, 0, 0, 0, false];
  let cpu = process.cpuUsage();
  const ends: RemoteEnd[] = [];
  const latencies: number[] = [];
  const work = (): void => {
    scheduled = false;
    if (begun === 0) {
      begun = performance.now();
      cpu = process.cpuUsage();
    }
    for (const { channel } of ends) {
      for (let element = channel.take(); element !== undefined; element = channel.take()) {
        if ('kind' in element) {
          if (element.kind === 'end') ended += 1;
          continue;
        }
        const { values, size, timestamps } = element;
        if (paced) {
          const now = wallClock();
          for (let i = 0; i < size; i++) latencies.push(now - timestamps[i]!);
        }
        for (let i = 0; i < size; i++) total += (values[i] as Sold).price;
        records += size;
        releaseBatch(element);
      }
    }
    if (ended < INSTANCES) return;
    const used = process.cpuUsage(cpu);
    done({ records, total: Math.round(total), ms: performance.now() - begun, cpu: (used.user + used.system) / 1e6, latencyMs: quantiles(latencies, 3) });
    for (const end of ends) end.close();
  };
  const wake = (): void => {
    if (scheduled) return;
    scheduled = true;
    setImmediate(work);
  };
  for (let i = 0; i < INSTANCES; i++) ends.push(channels.in({ name: `lane ${i}`, attempt: run, wake }));
}

interface Wanted {
  readonly events: number;
  readonly runs: number;
  readonly rate: number | undefined;
}

type Figures = Parameters<Parameters<typeof receive>[3]>[0];

async function measure(between: string, channels: RemoteChannels, next: () => Promise<Figures>, { events, runs, rate }: Wanted): Promise<void> {
  // The first one warms up, and is not printed.
  for (let run = 0; run <= runs; run++) {
    const got = next();
    const bytes = channels.figures.sentBytes;
    const cpu = process.cpuUsage();
    channels.tell([run, rate !== undefined]);
    await send(channels, events, run, rate);
    const { records, ms, cpu: receiverCpu, latencyMs } = await got;
    if (records !== events) throw new Error(`${records} of ${events} records came.`);
    const used = process.cpuUsage(cpu);
    if (run === 0) continue;
    const senderCpu = (used.user + used.system) / 1e6;
    if (latencyMs !== undefined) {
      print({ bench: 'exchange', between, events, run, rate, latencyMs });
      tell(`exchange between ${between} at ${rate} records/s: p50 ${latencyMs.p50} ms, p99 ${latencyMs.p99} ms`);
      continue;
    }
    print({
      bench: 'exchange',
      between,
      events,
      run,
      recordsPerSecond: Math.round((events / ms) * 1000),
      bytesPerRecord: rounded((channels.figures.sentBytes - bytes) / events, 1),
      // Of two threads the process's is both.
      ...(between === 'threads'
        ? { cpuSeconds: rounded(senderCpu), recordsPerCpuSecond: Math.round(events / senderCpu) }
        : {
            senderCpuSeconds: rounded(senderCpu),
            receiverCpuSeconds: rounded(receiverCpu),
            recordsPerCpuSecond: Math.round(events / Math.max(senderCpu, receiverCpu)),
          }),
    });
    tell(`exchange between ${between}: ${(events / ms / 1000).toFixed(2)} M records/s`);
  }
}

const connectionsOf = (worker: string, mail?: (message: unknown) => void): Connections => {
  const say = (_: unknown, text?: string): void => tell(text ?? '');
  return new Connections({
    hello: () => ({ cluster: 'bench', worker, epoch: 0, plans: [] }),
    secret: 'bench',
    log: { debug: say, info: say, warn: say, error: say },
    mail: (_, message) => mail?.(message),
  });
};

/** The other process. */
async function child(): Promise<void> {
  let channels: RemoteChannels | undefined;
  const connections = connectionsOf('b', (message) => receive(channels!, ...(message as [number, boolean]), (figures) => process.send!(figures)));
  const address = await connections.listen();
  process.send!(address);
  ({ channels } = await connections.connect({ worker: 'a', host: '', port: 0 }));
  await channels.lost;
  await connections.close();
  process.disconnect();
}

/** The other thread. */
function thread(port: MessagePort): void {
  const channels: RemoteChannels = new RemoteChannels(threadLink(port, { peer: 'sender' }), {
    mail: (message) => receive(channels, ...(message as [number, boolean]), (figures) => channels.tell(figures)),
  });
}

async function processes(wanted: Wanted): Promise<void> {
  const other: ChildProcess = fork(fileURLToPath(import.meta.url), ['--child'], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  const [address] = (await once(other, 'message')) as [{ host: string; port: number }];
  const connections = connectionsOf('a');
  const { channels } = await connections.connect({ worker: 'b', ...address });
  await measure('processes', channels, async () => ((await once(other, 'message')) as [Figures])[0], wanted);
  await connections.close();
  await once(other, 'exit');
}

async function threads(wanted: Wanted): Promise<void> {
  const { port1, port2 } = new MessageChannel();
  const worker = new Worker(new URL(import.meta.url), { workerData: { port: port2 }, transferList: [port2] });
  let tellFigures = (_: Figures): void => {};
  const channels = new RemoteChannels(threadLink(port1, { peer: 'receiver' }), { mail: (message) => tellFigures(message as Figures) });
  const next = (): Promise<Figures> =>
    new Promise((resolve) => {
      tellFigures = resolve;
    });
  await measure('threads', channels, next, wanted);
  await worker.terminate();
}

const args = process.argv.slice(2);
const option = (name: string): string | undefined => (args.includes(`--${name}`) ? args[args.indexOf(`--${name}`) + 1] : undefined);
if (!isMainThread) thread((workerData as { port: MessagePort }).port);
else if (args.includes('--child')) await child();
else {
  const rate = option('rate') === undefined ? undefined : Number(option('rate'));
  const wanted: Wanted = { events: Number(option('events') ?? (rate === undefined ? 4_000_000 : rate * 5)), runs: Number(option('runs') ?? 3), rate };
  const between = option('between');
  if (between !== 'threads') await processes(wanted);
  if (between !== 'processes') await threads(wanted);
}
