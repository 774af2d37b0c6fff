// What all queries share: where events come from and where results go. `millrace run docs/examples/nexmark/q5.ts -- --input events.ndjson --output results`
//
//   --input PATH    events, one JSON object a line: a file, a folder or a pattern; without it they are made by the generator
//   --events N      how many of those (100000)          --seed N   which ones (1)
//   --output DIR    results go to files there, exactly once; without it to the screen
//
// The flags are read when the job is built, not when a query is imported: a test, a benchmark or another program may do that too.

import { parseArgs } from 'node:util';
import { type Job, job, type Stream } from 'millrace';
import { files, print } from 'millrace/connectors';
import { type Event, eventTime } from './events.ts';
import { generated } from './generator.ts';
import { whole } from './whole.ts';

/** A job that runs one query from its source to its sink. */
export function query<R>(name: string, results: (events: Stream<Event>) => Stream<R>): Job {
  return job(
    name,
    (env) => {
      const { input, output, events, seed } = flags();
      const source = input === undefined ? generated({ events, seed }) : files.source<Event>({ path: input });
      results(env.source('events', source, eventTime)).sink('results', output === undefined ? print() : files.sink({ directory: output }));
    },
    // Each run begins anew, unless one asks for checkpoints: --checkpoints DIR --every 1s.
    { checkpoints: false },
  );
}

function flags(): { input: string | undefined; output: string | undefined; events: number; seed: number } {
  const { values } = parseArgs({
    options: { input: { type: 'string' }, output: { type: 'string' }, events: { type: 'string', default: '100000' }, seed: { type: 'string', default: '1' } },
  });
  return { input: values.input, output: values.output, events: whole('events', values.events), seed: whole('seed', values.seed) };
}
