// What is said on the command line, as data.

export interface Settings {
  readonly backend: 'memory' | 'level';
  readonly parallelism: number;
  readonly source: 'memory' | 'file';
  /** Milliseconds between checkpoints; undefined: none. */
  readonly checkpoint: number | undefined;
  readonly runs: number;
  /** Records a run; undefined: so many that it takes some seconds. */
  readonly events: number | undefined;
  readonly cacheBytes: number;
  readonly loop: boolean;
}

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1000, min: 60_000, KiB: 1 << 10, MiB: 1 << 20, GiB: 1 << 30 };

function amount(name: string, text: string, units: readonly string[]): number {
  const [, digits, unit] = /^(\d+(?:\.\d+)?)([a-zA-Z]+)$/.exec(text) ?? [];
  if (digits === undefined || unit === undefined || !units.includes(unit)) throw new Error(`--${name} ${text}: a number with one of ${units.join(', ')}.`);
  return Number(digits) * UNITS[unit]!;
}

function whole(name: string, text: string): number {
  const n = Number(text);
  if (!Number.isInteger(n) || n < 1) throw new Error(`--${name} ${text}: a whole number above 0.`);
  return n;
}

function oneOf<T extends string>(name: string, text: string, choices: readonly T[]): T {
  const choice = choices.find((each) => each === text);
  if (choice === undefined) throw new Error(`--${name} ${text}: one of ${choices.join(', ')}.`);
  return choice;
}

export function settingsOf(args: readonly string[]): Settings {
  const given = new Map<string, string>();
  for (let i = 0; i < args.length; i += 2) {
    const name = args[i]!;
    const value = args[i + 1];
    if (!name.startsWith('--') || value === undefined) throw new Error(`${name}: expected --name value.`);
    given.set(name.slice(2), value);
  }
  const take = <T>(name: string, read: (text: string) => T, otherwise: T): T => {
    const text = given.get(name);
    given.delete(name);
    return text === undefined ? otherwise : read(text);
  };
  const settings: Settings = {
    backend: take('backend', (text) => oneOf('backend', text, ['memory', 'level']), 'memory'),
    parallelism: take('parallelism', (text) => whole('parallelism', text), 1),
    source: take('source', (text) => oneOf('source', text, ['memory', 'file']), 'memory'),
    checkpoint: take<number | undefined>('checkpoint', (text) => amount('checkpoint', text, ['ms', 's', 'min']), undefined),
    runs: take('runs', (text) => whole('runs', text), 3),
    events: take<number | undefined>('events', (text) => whole('events', text), undefined),
    cacheBytes: take('cache', (text) => amount('cache', text, ['KiB', 'MiB', 'GiB']), 512 << 20),
    loop: take('loop', (text) => oneOf('loop', text, ['on', 'off']) === 'on', true),
  };
  if (given.size > 0) throw new Error(`There is no option --${[...given.keys()].join(', --')}.`);
  return settings;
}
