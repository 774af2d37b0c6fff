// What kills the servers and removes the folders of this process when it ends, however it ends.
//
// A shell reads a pipe that this process holds open and that is told what there is: the system closes the pipe when the process ends, also by SIGKILL, and then the
// shell kills every group of processes it still knows and removes the folders. It is a group of its own, so that Ctrl-C at a terminal does not reach it.
//
// Invariants:
//  L1  One shell for each process; it begins with the first server and holds nothing up (both ends are `unref`ed).
//  L2  A server is the leader of its own process group. It is told of right after it was spawned, and forgotten when its end was seen.

import { type ChildProcess, spawn } from 'node:child_process';

const SCRIPT = `
groups= folders=
without() { kept=; for each in $1; do [ "$each" = "$2" ] || kept="$kept $each"; done; }
while read -r word value; do
  case $word in
    began) groups="$groups $value" ;;
    ended) without "$groups" "$value"; groups=$kept ;;
    made) folders="$folders $value" ;;
    removed) without "$folders" "$value"; folders=$kept ;;
  esac
done
for each in $groups; do kill -s KILL -- "-$each" 2>/dev/null; done
for each in $folders; do rm -rf -- "$each" || { sleep 1; rm -rf -- "$each"; }; done
`;

let shell: ChildProcess | undefined;

/** `made` and `removed` take a folder without blanks in its path, `began` and `ended` the id of a process group. */
export function tell(word: 'began' | 'ended' | 'made' | 'removed', value: number | string): void {
  if (shell === undefined) {
    shell = spawn('sh', ['-c', SCRIPT], { detached: true, stdio: ['pipe', 'ignore', 'inherit'] });
    shell.unref();
    (shell.stdin as unknown as { unref(): void }).unref();
  }
  shell.stdin!.write(`${word} ${value}\n`);
}
