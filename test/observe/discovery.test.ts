import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Announcement, announce, announced } from '../../src/observe/discovery.ts';

let above: string;
let folder: string;
beforeEach(() => {
  above = mkdtempSync(join(tmpdir(), 'millrace-discovery-'));
  folder = join(above, 'millrace');
});
afterEach(() => rmSync(above, { recursive: true, force: true }));

const job = (change: Partial<Announcement> = {}): Announcement => ({
  job: 'a',
  id: 'x1',
  pid: process.pid,
  url: 'http://127.0.0.1:1',
  startedAt: 5,
  ...change,
});

describe('a job that is announced', () => {
  it('is found until it is withdrawn, in files that only their owner reads', () => {
    const withdraw = announce(job(), folder);
    const path = join(folder, `${process.pid}-a.json`);
    expect(announced(folder)).toEqual([job()]);
    expect([statSync(folder).mode & 0o777, statSync(path).mode & 0o777]).toEqual([0o700, 0o600]);
    withdraw();
    withdraw();
    expect(readdirSync(folder)).toEqual([]);
    expect(process.listeners('exit').includes(withdraw)).toBe(false);
  });

  it('does not withdraw another run that has taken its name', () => {
    const first = announce(job(), folder);
    const second = announce(job({ id: 'x2' }), folder);
    first();
    expect(announced(folder)).toEqual([job({ id: 'x2' })]);
    second();
    expect(announced(folder)).toEqual([]);
  });

  it('is forgotten, with everything it left, when its process is dead', () => {
    announce(job({ pid: 2 ** 22 + 1 }), folder)();
    writeFileSync(join(folder, '4194305-a.json'), JSON.stringify(job({ pid: 4194305 })));
    writeFileSync(join(folder, '.4194305-beside'), '');
    expect(announced(folder)).toEqual([]);
    expect(readdirSync(folder)).toEqual([]);
  });

  it('is passed over when its file is nothing that could be read', () => {
    mkdirSync(folder, { mode: 0o700 });
    for (const [name, text] of [
      ['1-a', '{'],
      ['2-b', '{"job": 1}'],
      ['notes', '{}'],
    ] as const)
      writeFileSync(join(folder, name === 'notes' ? 'notes.json' : `${process.pid}-${name}.json`), text);
    expect(announced(folder)).toEqual([]);
    expect(existsSync(join(folder, 'notes.json'))).toBe(true);
  });
});

describe('the folder', () => {
  it('that is not there has no jobs', () => {
    expect(announced(folder)).toEqual([]);
  });

  it('that others could write is made ours alone', () => {
    mkdirSync(folder);
    chmodSync(folder, 0o777);
    announce(job(), folder)();
    expect(statSync(folder).mode & 0o777).toBe(0o700);
  });

  it('that is a link elsewhere is refused, by writers and readers', () => {
    mkdirSync(join(above, 'elsewhere'));
    symlinkSync(join(above, 'elsewhere'), folder);
    expect(() => announce(job(), folder)).toThrow(expect.objectContaining({ code: 'DIRECTORY_UNWRITABLE' }));
    expect(() => announced(folder)).toThrow(/it is no folder\. Remove it/);
    expect(readdirSync(join(above, 'elsewhere'))).toEqual([]);
  });
});
