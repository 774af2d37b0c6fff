#!/usr/bin/env node
// `millrace`: the command. It reads the command line and says how it ended; what is done stands in the files of the commands.
//
// Exit codes: 0 the job finished, was stopped or cancelled, or the question was answered; 1 it failed; 2 the command line means nothing.

import { createRequire } from 'node:module';
import { Command, CommanderError } from 'commander';
import { MillraceError } from '../errors.ts';
import { cancelCommand, checkpointsCommand, jobsCommand, type LookFlags, stopCommand, treeCommand } from './look-commands.ts';
import { type PlanFlags, planCommand } from './plan-command.ts';
import { type RunFlags, runCommand } from './run-command.ts';
import { saying } from './said.ts';
import { checkpointCommand, repartitionCommand, rescaleCommand, savepointCommand } from './savepoint-commands.ts';
import { addStateCommands } from './state-commands.ts';
import { type ReplayFlags, replayCommand } from './state-replay.ts';
import { type VerifyFlags, verifyCommand } from './state-verify.ts';
import { withWhere, withZooKeeper } from './where.ts';
import type { WorkerFlags } from './worker-command.ts';

// Whoever read the output has gone: that is no reason to end what runs.
process.stderr.on('error', ignoreClosed);
process.exitCode = await main(process.argv.slice(2));

function ignoreClosed(error: NodeJS.ErrnoException): void {
  if (error.code !== 'EPIPE') throw error;
}

async function main(argv: readonly string[]): Promise<number> {
  // Everything behind `--` is the module's.
  const dashes = argv.indexOf('--');
  const own = dashes < 0 ? argv : argv.slice(0, dashes);
  const json = own.includes('--json');
  let code = 0;
  const run = async (path: string, flags: RunFlags): Promise<void> => {
    code = await runCommand(path, flags, dashes < 0 ? [] : argv.slice(dashes + 1));
  };
  const plan = (path: string, flags: PlanFlags): Promise<void> => planCommand(path, flags, dashes < 0 ? [] : argv.slice(dashes + 1));
  const verify = async (snapshot: string, path: string, flags: VerifyFlags): Promise<void> => {
    code = await verifyCommand(snapshot, path, flags, dashes < 0 ? [] : argv.slice(dashes + 1));
  };
  const worker = async (paths: string[], flags: WorkerFlags): Promise<void> => {
    // ZooKeeper's client is loaded by those who need it.
    const { workerCommand } = await import('./worker-command.ts');
    code = await workerCommand(paths, flags, dashes < 0 ? [] : argv.slice(dashes + 1));
  };
  const program = command(run, plan, worker);
  const replay = (path: string, flags: ReplayFlags): Promise<void> => replayCommand(path, flags, dashes < 0 ? [] : argv.slice(dashes + 1));
  addSnapshotCommands(program.commands.find((each) => each.name() === 'state')!, verify, replay);
  try {
    await program.parseAsync([...own], { from: 'user' });
    return code;
  } catch (error) {
    if (error instanceof CommanderError) {
      if (error.exitCode === 0) return 0;
      if (error.code === 'commander.help') {
        process.stderr.write(program.helpInformation());
        return 2;
      }
      saying(json).error(usage(error.message, own));
      return 2;
    }
    saying(json).error(error);
    return (error as Partial<MillraceError>).code === 'OPTION_INVALID' ? 2 : 1;
  }
}

function command(
  run: (path: string, flags: RunFlags) => Promise<void>,
  plan: (path: string, flags: PlanFlags) => Promise<void>,
  worker: (paths: string[], flags: WorkerFlags) => Promise<void>,
): Command {
  const program = new Command('millrace')
    .description('Runs jobs, looks at those that run, and stops them.')
    .version(versionOf(), '-V, --version', 'print the version of Millrace')
    .exitOverride()
    .configureOutput({ writeErr: () => {}, outputError: () => {} })
    .configureHelp({ helpWidth: 110 });
  const add = (name: string, about: string): Command => program.command(name).description(about);

  add('run <module>', 'Run the job that a module exports by default, until it ends; Ctrl-C stops it behind a last checkpoint')
    .option('--parallelism <n>', 'parallel instances of each operator that does not say otherwise')
    .option('--threads <n>', 'threads beside the one that supervises (0: all runs in this one)')
    .option('--state <backend>', 'where keyed state is kept: memory, level or level:DIR')
    .option('--checkpoints <dir>', "where checkpoints are kept: a folder, or s3://bucket/folder (the job's own, else .millrace)")
    .option('--no-checkpoints', 'run without checkpoints')
    .option('--every <time>', 'time between two checkpoints, such as 10s')
    .option('--restore <which>', 'latest, none, the path of a savepoint or checkpoint, or the id of a retained one')
    .option('--allow-non-restored-state', 'drop the state of operators that the job does not have any more')
    .option('--claim', "the savepoint becomes the job's, which removes it when it has a checkpoint of its own")
    .option('--port <n>', 'port of the control door on this machine (a free one)')
    .option('--wait', 'wait where another process runs the job already')
    .option('--json', 'say what happens as lines of JSON')
    .addHelpText('after', '\nEverything after -- is left to the module, in process.argv.')
    .action(run);

  const joins = add('worker <modules...>', 'Join a cluster with the jobs that modules export by default; SIGTERM leaves it in good order, and the jobs go on');
  withZooKeeper(joins.requiredOption('--zookeeper <servers>', 'host:port of the servers, separated by commas'))
    .option('--slots <n>', 'how many instances of one operator this process takes (1)')
    .option('--threads <n>', 'threads that tasks run in (as many as slots, at most one for each processor; 0: the main one)')
    .option('--parallelism <n>', 'parallel instances of each operator that does not say otherwise: 4, or 2-8 as there are slots')
    .option('--host <host>', 'where it listens for other workers (127.0.0.1)')
    .option('--port <n>', 'the port of that (a free one)')
    .option('--advertise <host>', 'where other workers reach it (--host)')
    .option('--data <dir>', 'a folder of this machine, in which --state level keeps state')
    .option('--secret-file <file>', 'what all workers of the cluster have in common')
    .option('--tls-cert <file>', 'certificate of this worker, PEM')
    .option('--tls-key <file>', 'its private key, PEM')
    .option('--tls-ca <file>', 'certificates of the authority that signed those of all workers, PEM')
    .option('--checkpoints <dir>', "where checkpoints are kept, reached by all workers: a folder, or s3://bucket/folder (the job's own, else .millrace)")
    .option('--every <time>', 'time between two checkpoints, such as 10s')
    .option('--state <backend>', 'where keyed state is kept: memory, level or level:DIR')
    .option('--restore <which>', 'latest, none, the path of a savepoint or checkpoint, or the id of a retained one: where the job does not run yet')
    .option('--door-port <n>', 'port of the control door on this machine (a free one)')
    .option('--json', 'say what happens as lines of JSON')
    .addHelpText('after', '\nEverything after -- is left to the modules, in process.argv.')
    .action(worker);

  add('plan <module>', 'Show what the job of a module will run as: operators that run together, instances, exchanges; runs nothing')
    .option('--graph', 'as a graph in the language of Mermaid')
    .option('--json', 'as data')
    .option('--parallelism <n>', 'for that many instances of each operator that does not say otherwise')
    .action(plan);

  const look = (name: string, about: string, act: (job: string | undefined, flags: LookFlags) => Promise<void>): Command =>
    withWhere(add(name, about)).option('--json', 'answer with JSON').action(act);
  look('tree [job]', 'Show every task of a job: state, restarts, records, watermark, last checkpoint', treeCommand).option(
    '--watch',
    'every second, until the job ends',
  );
  look('checkpoints [job]', 'List the checkpoints that a job retains, or has left', checkpointsCommand).option(
    '--checkpoints <dir>',
    'where the checkpoints of a job lie that does not run (.millrace)',
  );
  look('checkpoint [job]', 'Take a checkpoint now', checkpointCommand);
  const act = (name: string, about: string, run: (args: readonly string[], flags: LookFlags) => Promise<void>): Command =>
    withWhere(add(name, about)).option('--json', 'answer with JSON').action(run);
  act('savepoint <job-and-directory...>', 'Write all that a job holds into a folder that is yours: [job] DIR', savepointCommand);
  act('rescale <job-and-n...>', 'Go on with that many instances of each operator that does not say otherwise: [job] N', rescaleCommand);
  look('stop [job]', 'Stop a job behind a last checkpoint; the next start goes on from there', stopCommand)
    .option('--drain', 'let event time go to its end first, so that windows fire')
    .option('--savepoint <dir>', 'write what the last checkpoint holds into that folder too');
  look('cancel [job]', 'End a job at once; the next start begins anew', cancelCommand);
  withWhere(add('jobs', 'List the jobs that run on this machine'))
    .option('--json', 'answer with JSON')
    .action((flags: LookFlags) => jobsCommand(flags));
  addStateCommands(program);
  return program;
}

/** What is done with snapshots beside looking. */
function addSnapshotCommands(
  state: Command,
  verify: (snapshot: string, path: string, flags: VerifyFlags) => Promise<void>,
  replay: (path: string, flags: ReplayFlags) => Promise<void>,
): void {
  const replays = state
    .command('replay <module>')
    .description('Show what became of one key: replay the job of a module from a snapshot, with its own sources, and touch nothing of it')
    .requiredOption('--at <snapshot>', 'a savepoint or checkpoint by its path, or a retained one by its id; latest is the newest')
    .requiredOption('--uid <uid>', 'the operator to look at')
    .option('--key <key>', 'which key; none of an operator that keeps no state by key')
    .option('--until <limit>', 'a number of records, an instant such as 2026-01-31T12:00:00Z, or @ and epoch milliseconds of event time')
    .option('--patience <time>', 'how long to wait for more records of a source that does not end (5s)')
    .option('--parallelism <n>', 'instances of each operator that does not say otherwise (1)')
    .option('--state <backend>', 'where the state of what stands in front is kept: memory, level or level:DIR')
    .option('--allow-non-restored-state', 'pass over the state of operators that the job does not have any more')
    .option('--checkpoints <dir>', 'where the checkpoints of a job lie that does not run (.millrace)');
  withWhere(replays).option('--json', 'lines of JSON').action(replay);
  state
    .command('verify <snapshot> <module>')
    .description('Say of each state whether the job of a module can take over a savepoint or checkpoint; exit code 1 where it cannot')
    .option('--parallelism <n>', 'at that many instances of each operator that does not say otherwise')
    .option('--allow-non-restored-state', 'state that the job does not have any more may be dropped')
    .option('--json', 'answer with JSON')
    .action(verify);
  state
    .command('repartition <from> <to>')
    .description('Make a savepoint with another number of key groups')
    .requiredOption('--max-parallelism <n>', 'the number of key groups, which is the highest parallelism')
    .option('--json', 'answer with JSON')
    .action(repartitionCommand);
}

/** From the package.json of the package that this file lies in, built or not. */
function versionOf(): string {
  return (createRequire(import.meta.url)('millrace/package.json') as { version: string }).version;
}

function usage(message: string, own: readonly string[]): MillraceError {
  const [name] = own.filter((argument) => !argument.startsWith('-'));
  const sentence = message.replace(/^error: /, '').replace(/\s*\n\s*/g, ' ');
  const unknownOption = name === 'run' && /^unknown option/.test(sentence);
  return new MillraceError('OPTION_INVALID', `${sentence.charAt(0).toUpperCase()}${sentence.slice(1)}${/[.?)]$/.test(sentence) ? '' : '.'}`, {
    todo: unknownOption ? 'Options of the module stand after --; millrace run --help lists those of run.' : 'See millrace --help.',
  });
}
