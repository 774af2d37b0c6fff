// `millrace plan`: what a module's job will run as, without running it.

import { MillraceError } from '../errors.ts';
import { planGraph, planText } from '../graph/plan-views.ts';
import { loadJob } from './job-module.ts';
import { countOf } from './option-values.ts';

export interface PlanFlags {
  graph?: boolean;
  json?: boolean;
  parallelism?: string;
}

export async function planCommand(path: string, { graph, json, parallelism }: PlanFlags, moduleArguments: readonly string[]): Promise<void> {
  if (graph === true && json === true) throw new MillraceError('OPTION_INVALID', 'Only one of --graph and --json can be had.', { todo: 'Leave one out.' });
  const options = parallelism === undefined ? {} : { parallelism: countOf(parallelism, '--parallelism') };
  const plan = (await loadJob(path, moduleArguments)).plan(options);
  process.stdout.write(`${json === true ? JSON.stringify(plan) : graph === true ? planGraph(plan) : planText(plan)}\n`);
}
