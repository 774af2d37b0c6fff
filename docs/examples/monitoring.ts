// The processes of this machine: mean CPU in windows of 5 minutes side by side, highest memory in the last 60 minutes each minute. `npm start` runs it.
//
//   --window 5m    width of the CPU windows              --slide 1m     how often the memory window moves
//   --memory 60m   width of the memory window (60 slides) --output DIR   where results go (.millrace/monitoring-output)
//   --input FILE   read recorded samples, one JSON object a line, instead of this machine
//
// Results go to files exactly once. What the screen shows comes from windows of their own that give early results: a file wants each window once.

import { basename } from 'node:path';
import { parseArgs } from 'node:util';
import { avg, early, type JobEvent, job, max, minutes, type RunOptions, seconds, sliding, tumbling } from 'millrace';
import { files } from 'millrace/connectors';
import { processes, type Sample } from './monitoring/processes.ts';
import { Screen } from './monitoring/screen.ts';

const { values: flags } = parseArgs({
  options: { window: { type: 'string' }, slide: { type: 'string' }, memory: { type: 'string' }, input: { type: 'string' }, output: { type: 'string' } },
});
const window = duration(flags.window ?? '5m');
const slide = duration(flags.slide ?? '1m');
const memory = flags.memory === undefined ? 60 * slide : duration(flags.memory);
const output = flags.output ?? '.millrace/monitoring-output';
const screen = new Screen({ titles: { mean: `mean ${label(window)}`, peak: `max ${label(memory)}` } });

export default job(
  'monitoring',
  (env) => {
    const source = flags.input === undefined ? processes(seconds(1)) : files.source<Sample>({ path: flags.input });
    const samples = env.source('samples', source, { timestamp: (sample) => sample.at, outOfOrderness: seconds(1) });
    const byProcess = samples.keyBy((sample) => sample.process);

    const cpu = byProcess.window(tumbling(window)).aggregate(
      'cpu-mean',
      avg((sample) => sample.cpu),
    );
    const peak = byProcess.window(sliding(memory, slide)).aggregate(
      'memory-max',
      max((sample) => sample.memory),
    );
    const roll = { every: Math.max(seconds(10), slide) };
    cpu.sink('cpu-files', files.sink({ directory: output, prefix: 'cpu', roll }));
    peak.sink('memory-files', files.sink({ directory: output, prefix: 'memory', roll }));

    samples.forEach('screen-samples', (sample) => screen.sample(sample));
    const soon = early({ every: seconds(2) });
    byProcess
      .window(tumbling(window))
      .trigger(soon)
      .aggregate(
        'cpu-so-far',
        avg((sample) => sample.cpu),
      )
      .forEach('screen-cpu', (result) => screen.mean(result));
    byProcess
      .window(sliding(memory, slide))
      .trigger(soon)
      .aggregate(
        'memory-so-far',
        max((sample) => sample.memory),
      )
      .forEach('screen-memory', (result) => screen.peak(result));
  },
  { ...checkpoints(), onEvent: (event: JobEvent) => screen.event(event) },
);

/** Windows of another width are another job: each set of flags has checkpoints of its own. Without flags they lie where `millrace run` puts them. */
function checkpoints(): RunOptions {
  const parts = [flags.input && `recorded-${basename(flags.input)}`, flags.window && `window-${flags.window}`, flags.slide && `slide-${flags.slide}`];
  const name = [...parts, flags.memory && `memory-${flags.memory}`].filter(Boolean).join('-');
  return name === '' ? {} : { checkpoints: { directory: `.millrace/${name}`, every: seconds(10) } };
}

function duration(text: string): number {
  const [, amount, unit] = /^(\d+)([smh])$/.exec(text) ?? [];
  if (unit === undefined || Number(amount) === 0) throw new Error(`'${text}' is no time: write 10s, 5m or 1h.`);
  return Number(amount) * (unit === 's' ? seconds(1) : unit === 'm' ? minutes(1) : minutes(60));
}

function label(ms: number): string {
  return ms % minutes(1) === 0 ? `${ms / minutes(1)}m` : `${ms / seconds(1)}s`;
}
