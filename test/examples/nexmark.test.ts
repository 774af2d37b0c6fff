import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { eventAt, generated } from '../../docs/examples/nexmark/generator.ts';
import { build, Place, ROOT } from '../cli/millrace-process.ts';
import { rowsOf } from '../e2e/nexmark-oracle.ts';
import { canonical } from '../e2e/oracle.ts';
import { QUERY } from '../e2e/workloads.ts';

const query = (name: string): string => join(ROOT, 'docs', 'examples', 'nexmark', `${name}.ts`);
const EVENTS = 20_000;
const events = Array.from({ length: EVENTS }, (_, i) => eventAt(i, 1));
const lines = events.map((event) => JSON.stringify(event));

describe('the generator', () => {
  it('makes one person, three auctions and 46 bids of 50 events, with ids that are unique', () => {
    const of = (type: string) => events.filter((event) => event.type === type);
    expect([of('person').length, of('auction').length, of('bid').length]).toEqual([EVENTS / 50, (3 * EVENTS) / 50, (46 * EVENTS) / 50]);
    for (const type of ['person', 'auction']) {
      const ids = of(type).map((event) => (event.type === 'bid' ? 0 : event.id));
      expect([new Set(ids).size, Math.min(...ids)]).toEqual([ids.length, 1000]);
    }
  });

  it('gives each millisecond an event, at most 94 ms behind the newest', () => {
    expect(events.map(({ dateTime }) => dateTime).sort((a, b) => a - b)).toEqual(events.map((_, i) => 1_700_000_000_000 + i));
    let newest = 0;
    let behind = 0;
    for (const { dateTime } of events) {
      newest = Math.max(newest, dateTime);
      behind = Math.max(behind, newest - dateTime);
    }
    expect(behind).toBe(94);
  });

  it('names auctions and persons that exist, but for a few; some bids come before their auction', () => {
    const known = new Map(events.flatMap((event, i) => (event.type === 'bid' ? [] : [[`${event.type} ${event.id}`, i] as const])));
    let unknown = 0;
    let early = 0;
    for (const [i, event] of events.entries()) {
      if (event.type !== 'bid') continue;
      const at = known.get(`auction ${event.auction}`);
      if (at === undefined) unknown += 1;
      else if (at > i) early += 1;
    }
    expect(unknown).toBeLessThan(100);
    expect(early).toBeGreaterThan(100);
  });

  it('gives the same events for the same seed, and others for another', () => {
    expect(eventAt(777, 1)).toEqual(events[777]);
    expect(eventAt(777, 2)).not.toEqual(events[777]);
  });

  it('is a source that goes on from any position', async () => {
    const source = generated({ events: 5000, seed: 1 });
    const context = {} as Parameters<typeof source.read>[2];
    const read = async (share: number, from?: number) => {
      const all = [];
      for await (const { values, position } of source.read({ share, of: 4 }, from, context)) all.push({ values, position });
      return all;
    };
    const whole = await read(2);
    expect(whole.flatMap(({ values }) => values)).toEqual(events.slice(0, 5000).filter((_, i) => i % 4 === 2));
    expect(await read(2, whole[0]!.position)).toEqual(whole.slice(1));
  });
});

describe('a query, run by the command', () => {
  let place: Place;
  beforeAll(build, 180_000);
  beforeEach(() => {
    place = new Place();
  });
  afterEach(() => place.remove());

  it('prints what a plain computation gives for the generated events', async () => {
    const { code, stdout } = await place.run('run', query('q5'), '--', '--events', String(EVENTS));
    expect(code).toBe(0);
    expect(canonical(stdout.trimEnd().split('\n'))).toBe(canonical(rowsOf('q5', lines)));
  });

  it('reads a file and writes files, with checkpoints', async () => {
    place.write('events.ndjson', `${lines.join('\n')}\n`);
    const { code, stderr } = await place.run(
      'run',
      query('q8'),
      '--checkpoints',
      'ckpt',
      '--parallelism',
      '2',
      '--',
      '--input',
      'events.ndjson',
      '--output',
      'out',
    );
    expect({ code, ended: /q8: finished/.test(stderr) }).toEqual({ code: 0, ended: true });
    const rows = readdirSync(join(place.folder, 'out'))
      .filter((name) => !name.startsWith('.'))
      .flatMap((name) =>
        readFileSync(join(place.folder, 'out', name), 'utf8')
          .trimEnd()
          .split('\n'),
      );
    expect(canonical(rows)).toBe(canonical(rowsOf('q8', lines)));
  });

  it('stands beside a file for each of the tested queries', () => {
    const files = readdirSync(join(ROOT, 'docs', 'examples', 'nexmark')).filter((name) => /^q\d+\.ts$/.test(name));
    expect(files.sort()).toEqual(Object.keys(QUERY).map((name) => `${name}.ts`));
  });
});
