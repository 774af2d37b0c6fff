// Whether a version is in a range as package.json writes it under `engines`. No pre-releases, no hyphen ranges: a range it cannot read throws.

type Version = readonly [major: number, minor: number, patch: number];

export function satisfies(version: string, range: string): boolean {
  const wanted = parse(version).lower;
  return range.split('||').some((alternative) =>
    alternative
      .trim()
      .replace(/([<>=^~]+)\s+/g, '$1')
      .split(/\s+/)
      .every((comparator) => matches(wanted, comparator)),
  );
}

function matches(version: Version, comparator: string): boolean {
  const match = /^(>=|<=|>|<|=|\^|~)?(.*)$/.exec(comparator)!;
  const { lower, upper } = parse(match[2]!);
  switch (match[1]) {
    case '>=':
      return compare(version, lower) >= 0;
    case '>':
      return compare(version, upper) >= 0;
    case '<':
      return compare(version, lower) < 0;
    case '<=':
      return compare(version, upper) < 0;
    case '^':
      return compare(version, lower) >= 0 && version[0] === lower[0];
    case '~':
      return compare(version, lower) >= 0 && version[0] === lower[0] && (match[2]!.split('.').length === 1 || version[1] === lower[1]);
    default:
      return compare(version, lower) >= 0 && compare(version, upper) < 0;
  }
}

/** The first version of what is written, and the first behind it: '20' is 20.0.0 up to 21.0.0. */
function parse(text: string): { lower: Version; upper: Version } {
  const numbers: number[] = [];
  for (const part of text === '' || text === '*' ? [] : text.replace(/^v/, '').split('.')) {
    if (/^[xX*]$/.test(part)) break;
    if (!/^\d+$/.test(part)) throw new Error(`'${text}' is no version.`);
    numbers.push(Number(part));
  }
  const [major = 0, minor = 0, patch = 0] = numbers;
  const lower: Version = [major, minor, patch];
  if (numbers.length === 0) return { lower, upper: [Number.POSITIVE_INFINITY, 0, 0] };
  if (numbers.length === 1) return { lower, upper: [major + 1, 0, 0] };
  return { lower, upper: numbers.length === 2 ? [major, minor + 1, 0] : [major, minor, patch + 1] };
}

function compare(left: Version, right: Version): number {
  for (let i = 0; i < 3; i += 1) if (left[i] !== right[i]) return left[i]! < right[i]! ? -1 : 1;
  return 0;
}
