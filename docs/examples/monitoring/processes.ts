// A source of one's own: every process of this machine, once a second. It is unbounded and cannot be read again: what happened while nobody looked is gone.

import { execFile } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { Source } from 'millrace';

export interface Sample {
  /** Epoch milliseconds. */
  at: number;
  /** Name and number: the key. */
  process: string;
  /** Percent of one core, since the sample before. */
  cpu: number;
  /** Resident bytes. */
  memory: number;
}

/** Splits are named, so that a checkpoint can say how far each was read; here the position is only a count. */
export function processes(everyMs: number): Source<Sample, string, number> {
  return {
    bounded: false,
    splits: async () => ['this machine'],
    splitId: (split) => split,
    async *read(_split, from = 0, { signal }) {
      const look = process.platform === 'linux' ? procReader() : psReader();
      await look(); // shares of a processor are differences: the first look has none
      for (let position = from + 1; !signal.aborted; position++) {
        try {
          await pause(everyMs, undefined, { signal });
        } catch {
          return; // the job ends
        }
        const values = await look();
        yield { values, timestamps: values.map((sample) => sample.at), position };
      }
    },
  };
}

/** Linux: /proc/<pid>/stat, all read within a few milliseconds. */
function procReader(): () => Promise<Sample[]> {
  const TICKS_PER_SECOND = 100;
  const PAGE_BYTES = 4096;
  let before = new Map<string, number>();
  let lookedAt = 0;
  return async () => {
    const at = Date.now();
    const seconds = (at - lookedAt) / 1000;
    const now = new Map<string, number>();
    const samples: Sample[] = [];
    for (const pid of readdirSync('/proc')) {
      if (!/^\d+$/.test(pid)) continue;
      let stat: string;
      try {
        stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
      } catch {
        continue; // it has just ended
      }
      // 1 (name with spaces) S …: the name ends at the last parenthesis, the state is the third field.
      const end = stat.lastIndexOf(')');
      const fields = stat.slice(end + 2).split(' ');
      const [user, system, rss] = [Number(fields[11]), Number(fields[12]), Number(fields[21])];
      if (!(rss > 0)) continue; // a thread of the kernel
      const key = `${stat.slice(stat.indexOf('(') + 1, end)} ${pid}`;
      const ticks = user + system;
      now.set(key, ticks);
      const cpu = ((ticks - (before.get(key) ?? ticks)) / TICKS_PER_SECOND / seconds) * 100;
      samples.push({ at, process: key, cpu: Math.max(0, cpu), memory: rss * PAGE_BYTES });
    }
    before = now;
    lookedAt = at;
    return samples;
  };
}

/** Elsewhere: `ps`, which keeps its own account of processor time. */
function psReader(): () => Promise<Sample[]> {
  const run = promisify(execFile);
  return async () => {
    const { stdout } = await run('ps', ['-A', '-o', 'pid=,pcpu=,rss=,comm='], { maxBuffer: 16 * 1024 * 1024 });
    const at = Date.now();
    return stdout.split('\n').flatMap((line): Sample[] => {
      const [, pid, cpu, rss, command] = /^\s*(\d+)\s+([\d.,]+)\s+(\d+)\s+(.+)$/.exec(line) ?? [];
      if (command === undefined) return [];
      const name = command.slice(command.lastIndexOf('/') + 1);
      return [{ at, process: `${name} ${pid}`, cpu: Number(cpu!.replace(',', '.')), memory: Number(rss) * 1024 }];
    });
  };
}
