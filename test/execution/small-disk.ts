// A disk that a test can fill and free: a small file system in memory where this process may mount one, else a port to the disk that says so.

import { spawnSync } from 'node:child_process';
import { promises as fs, mkdtempSync, rmSync, writeSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { type Io, systemIo } from '../../src/runtime/io.ts';

export interface SmallDisk {
  readonly kind: 'mounted' | 'port';
  readonly folder: string;
  /** What the engine sees of it. */
  readonly io: Io;
  fill(): Promise<void>;
  free(): Promise<void>;
}

const mountable = ((): boolean => {
  if (process.platform !== 'linux') return false;
  const folder = mkdtempSync(join(tmpdir(), 'millrace-disk-'));
  const mounted = mount(folder, 1);
  if (mounted) unmount(folder);
  rmSync(folder, { recursive: true });
  return mounted;
})();
/** Of LevelDB, which knows no port, only the first shows anything. */
export const DISKS: readonly SmallDisk['kind'][] = mountable ? ['mounted', 'port'] : ['port'];
export const MOUNTED = mountable;

function mount(folder: string, megabytes: number): boolean {
  return spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m`, 'none', folder]).status === 0;
}
function unmount(folder: string): void {
  // What a failing test has left open does not keep it.
  spawnSync('umount', ['-l', folder]);
}

export async function smallDisk(kind: SmallDisk['kind'], megabytes = 4): Promise<SmallDisk> {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-disk-'));
  if (kind === 'port') {
    onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
    return ported(folder);
  }
  if (!mount(folder, megabytes)) throw new Error(`${folder} could not be mounted.`);
  onTestFinished(() => {
    unmount(folder);
    rmSync(folder, { recursive: true, force: true });
  });
  const ballast = join(folder, 'ballast');
  return {
    kind,
    folder,
    io: systemIo(),
    async fill() {
      const file = await open(ballast, 'a');
      for (let size = 1 << 20; size >= 1; ) {
        try {
          writeSync(file.fd, Buffer.alloc(size));
        } catch (error) {
          if ((error as { code?: string }).code !== 'ENOSPC') throw error;
          size >>= 1;
        }
      }
      await file.close();
    },
    free: () => fs.rm(ballast),
  };
}

function ported(folder: string): SmallDisk {
  let full = false;
  const refuse = (path: unknown): void => {
    if (full && String(path).startsWith(folder)) throw Object.assign(new Error(`ENOSPC: no space left on device, write`), { code: 'ENOSPC', errno: -28 });
  };
  const io = systemIo();
  const ours: Partial<Io['fs']> = {
    writeFile: (async (...args: Parameters<typeof fs.writeFile>) => {
      refuse(args[0]);
      return fs.writeFile(...args);
    }) as typeof fs.writeFile,
    open: async (path, flags, mode) => {
      const handle = await fs.open(path, flags, mode);
      const { writeFile, write } = handle;
      handle.writeFile = async (...args) => {
        refuse(path);
        return writeFile.apply(handle, args);
      };
      handle.write = (async (...args: Parameters<typeof write>) => {
        refuse(path);
        return write.apply(handle, args);
      }) as typeof write;
      return handle;
    },
  };
  return {
    kind: 'port',
    folder,
    io: { ...io, fs: { ...fs, ...ours } },
    async fill() {
      full = true;
    },
    async free() {
      full = false;
    },
  };
}
