// Makes the events of Nexmark, by formula: event number n of a seed is the same on every machine and needs none of the others, so a source can go on from
// any position. `node --import ./scripts/typescript.mjs docs/examples/nexmark/generator.ts --events 1000000 --output events.ndjson` writes a file.
//
// Of 50 events in a row 1 is a person, 3 are auctions and 46 are bids; event time goes on by 1 ms an event. Events leave the source shuffled within each
// 100 of them. Half of the bids go to the hot auction of the moment, and most of the rest to the newest hundred auctions, or one that is yet to come;
// three of four auctions are opened by the hot seller, three of four bids are made by the hot bidder.

import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import type { Source } from 'millrace';
import type { Auction, Bid, Event, Person } from './events.ts';
import { whole } from './whole.ts';

export interface Extent {
  readonly events: number;
  /** Another seed, other events. */
  readonly seed: number;
}

const BASE_TIME = 1_700_000_000_000;
const FIRST_ID = 1000;
const GROUP = 50;
const PERSONS = 1;
const AUCTIONS = 3;
/** Events leave in another order within so many of them. */
const SHUFFLED = 100;
/** Of this many ids in a row one is hot. */
const HOT_EVERY = 100;
const AUCTIONS_IN_FLIGHT = 100;
const ACTIVE_PERSONS = 1000;
/** Ids that do not exist yet and that events name already. */
const LEAD = 10;

/** A bounded source of generated events. A position is the number of the next one. */
export function generated({ events, seed }: Extent): Source<Event, { share: number; of: number }, number> {
  const BATCH = 1000;
  const SHARES = 4;
  return {
    bounded: true,
    splits: async () => Array.from({ length: SHARES }, (_, share) => ({ share, of: SHARES })),
    splitId: ({ share }) => `share-${share}`,
    async *read({ share, of }, from = share) {
      for (let i = from; i < events; ) {
        const values: Event[] = [];
        for (; i < events && values.length < BATCH; i += of) values.push(eventAt(i, seed));
        yield { values, position: i };
      }
    },
  };
}

/** The event that leaves as number i. */
export function eventAt(i: number, seed: number): Event {
  const n = i - (i % SHUFFLED) + (((i % SHUFFLED) * 53) % SHUFFLED);
  const group = Math.floor(n / GROUP);
  const offset = n % GROUP;
  const draw = dice(n, seed);
  if (offset < PERSONS) return person(FIRST_ID + group, BASE_TIME + n, draw);
  const newestPerson = group;
  if (offset < PERSONS + AUCTIONS) return auction(FIRST_ID + group * AUCTIONS + offset - PERSONS, BASE_TIME + n, newestPerson, draw);
  return bid(BASE_TIME + n, group * AUCTIONS + AUCTIONS - 1, newestPerson, draw);
}

/** Gives one draw after the other: a whole number from 0, below `sides`. */
type Dice = (sides: number) => number;

function person(id: number, dateTime: number, draw: Dice): Person {
  const first = pick(FIRST_NAMES, draw);
  const last = pick(LAST_NAMES, draw);
  return {
    type: 'person',
    id,
    name: `${first} ${last}`,
    emailAddress: `${letters(3 + draw(6), draw)}@${letters(3 + draw(4), draw)}.com`,
    creditCard: Array.from({ length: 4 }, () => String(draw(10_000)).padStart(4, '0')).join(' '),
    city: pick(CITIES, draw),
    state: pick(STATES, draw),
    dateTime,
    extra: letters(105 + draw(70), draw),
  };
}

function auction(id: number, dateTime: number, newestPerson: number, draw: Dice): Auction {
  const hot = draw(4) > 0;
  const initialBid = price(draw);
  return {
    type: 'auction',
    id,
    itemName: letters(1 + draw(19), draw),
    description: letters(1 + draw(99), draw),
    initialBid,
    reserve: initialBid + price(draw),
    dateTime,
    // Twice the time in which as many auctions open as are open at a time.
    expires: dateTime + 1 + draw(Math.floor((2 * AUCTIONS_IN_FLIGHT * GROUP) / AUCTIONS)),
    seller: FIRST_ID + (hot ? newestPerson - (newestPerson % HOT_EVERY) : recent(newestPerson, ACTIVE_PERSONS, draw)),
    category: 10 + draw(5),
    extra: letters(270 + draw(250), draw),
  };
}

function bid(dateTime: number, newestAuction: number, newestPerson: number, draw: Dice): Bid {
  const hotAuction = draw(2) > 0;
  const hotBidder = draw(4) > 0;
  return {
    type: 'bid',
    auction: FIRST_ID + (hotAuction ? newestAuction - (newestAuction % HOT_EVERY) : recent(newestAuction, AUCTIONS_IN_FLIGHT, draw)),
    bidder: FIRST_ID + (hotBidder ? newestPerson - (newestPerson % HOT_EVERY) + 1 : recent(newestPerson, ACTIVE_PERSONS, draw)),
    price: price(draw),
    dateTime,
    extra: letters(54 + draw(28), draw),
  };
}

/** One of the newest `among`, or of the next few. */
function recent(newest: number, among: number, draw: Dice): number {
  const oldest = Math.max(0, newest - among);
  return oldest + draw(newest - oldest + LEAD);
}

/** From 100 to 100 million cents, each order of magnitude as often. */
function price(draw: Dice): number {
  return Math.round(10 ** (2 + (6 * draw(1_000_000)) / 1_000_000));
}

function pick(among: readonly string[], draw: Dice): string {
  return among[draw(among.length)]!;
}

function letters(length: number, draw: Dice): string {
  const from = draw(LETTERS.length - length);
  return LETTERS.slice(from, from + length);
}

function dice(n: number, seed: number): Dice {
  let state = mixed(n ^ mixed(seed));
  return (sides) => {
    state = (state + 0x9e3779b9) | 0;
    return mixed(state) % sides;
  };
}

/** The finalizer of murmur3: every bit of the result depends on every bit of the number. */
function mixed(number: number): number {
  let h = number;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

const FIRST_NAMES = ['Deiter', 'John', 'Julie', 'Kate', 'Luke', 'Paul', 'Peter', 'Sarah', 'Saul', 'Vicky', 'Walter'];
const LAST_NAMES = ['Abrams', 'Bartels', 'Jones', 'Noris', 'Shultz', 'Smith', 'Spencer', 'Walton', 'White'];
const CITIES = ['Bend', 'Boise', 'Cheyenne', 'Kent', 'Los Angeles', 'Phoenix', 'Portland', 'Redmond', 'San Francisco', 'Seattle'];
const STATES = ['AZ', 'CA', 'ID', 'OR', 'WA', 'WY'];
/** Texts are cut from this one. */
const LETTERS = Array.from({ length: 4096 }, (_, i) => 'abcdefghijklmnopqrstuvwxyz '[mixed(i) % 27]).join('');

async function write({ events, seed }: Extent, path: string): Promise<void> {
  const file = createWriteStream(path);
  for (let i = 0; i < events; ) {
    let lines = '';
    for (const end = Math.min(events, i + 1000); i < end; i++) lines += `${JSON.stringify(eventAt(i, seed))}\n`;
    if (!file.write(lines)) await once(file, 'drain');
  }
  file.end();
  await once(file, 'finish');
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const { values } = parseArgs({
    options: { events: { type: 'string', default: '100000' }, seed: { type: 'string', default: '1' }, output: { type: 'string', default: 'events.ndjson' } },
  });
  await write({ events: whole('events', values.events), seed: whole('seed', values.seed) }, values.output);
}
