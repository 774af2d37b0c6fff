// The queries of Nexmark computed plainly, each over all events at once: no windows, state or time that goes on.

import type { Auction, Bid, Event, Person } from '../../docs/examples/nexmark/events.ts';
import type { Query } from './workloads.ts';

const SECOND = 1000;
const CATEGORY = 10;
const STATES = ['OR', 'ID', 'CA'];

/** The rows of the query for these lines of input, in no order. */
export function rowsOf(query: Query, lines: readonly string[]): string[] {
  const events = lines.map((line) => JSON.parse(line) as Event);
  const persons = events.filter((event): event is Person => event.type === 'person');
  const auctions = events.filter((event): event is Auction => event.type === 'auction');
  const bids = events.filter((event): event is Bid => event.type === 'bid');
  return compute[query]({ persons, auctions, bids }).map((row) => JSON.stringify(row));
}

interface House {
  readonly persons: readonly Person[];
  readonly auctions: readonly Auction[];
  readonly bids: readonly Bid[];
}

const compute: Readonly<Record<Query, (house: House) => object[]>> = {
  q0: ({ bids }) => bids.map(({ auction, bidder, price, dateTime, extra }) => ({ auction, bidder, price, dateTime, extra })),
  q1: ({ bids }) => bids.map(({ auction, bidder, price, dateTime, extra }) => ({ auction, bidder, price: Math.floor((price * 908) / 1000), dateTime, extra })),
  q2: ({ bids }) => bids.filter(({ auction }) => auction % 123 === 0).map(({ auction, price }) => ({ auction, price })),
  q3({ persons, auctions }) {
    const sellers = new Map(persons.map((person) => [person.id, person]));
    return auctions.flatMap(({ id, category, seller }) => {
      const person = sellers.get(seller);
      if (category !== CATEGORY || person === undefined || !STATES.includes(person.state)) return [];
      return [{ name: person.name, city: person.city, state: person.state, id }];
    });
  },
  q4({ auctions, bids }) {
    const open = new Map(auctions.map((auction) => [auction.id, auction]));
    const highest = new Map<number, number>();
    for (const { auction, price, dateTime } of bids) {
      const lot = open.get(auction);
      if (lot === undefined || dateTime < lot.dateTime || dateTime > lot.expires) continue;
      highest.set(auction, Math.max(price, highest.get(auction) ?? 0));
    }
    const categories = new Map<number, number[]>();
    for (const [auction, price] of highest) {
      const { category } = open.get(auction)!;
      categories.set(category, [...(categories.get(category) ?? []), price]);
    }
    return [...categories].map(([category, prices]) => {
      const sum = prices.reduce((a, b) => a + b);
      return { category, count: prices.length, sum, avg: Math.floor(sum / prices.length) };
    });
  },
  q5({ bids }) {
    const windows = new Map<number, Map<number, number>>();
    for (const { auction, dateTime } of bids) {
      const last = dateTime - (dateTime % (2 * SECOND));
      for (let start = last - 8 * SECOND; start <= last; start += 2 * SECOND) {
        const counts = windows.get(start) ?? new Map<number, number>();
        windows.set(start, counts.set(auction, (counts.get(auction) ?? 0) + 1));
      }
    }
    return [...windows].flatMap(([start, counts]) => {
      const most = Math.max(...counts.values());
      return [...counts].filter(([, num]) => num === most).map(([auction, num]) => ({ windowStart: start, windowEnd: start + 10 * SECOND, auction, num }));
    });
  },
  q7({ bids }) {
    const windows = new Map<number, Bid[]>();
    for (const bid of bids) {
      const start = bid.dateTime - (bid.dateTime % (10 * SECOND));
      const held = windows.get(start);
      if (held === undefined) windows.set(start, [bid]);
      else held.push(bid);
    }
    return [...windows].flatMap(([start, all]) => {
      const most = all.reduce((highest, { price }) => Math.max(highest, price), 0);
      return all
        .filter(({ price }) => price === most)
        .map(({ auction, bidder, price, dateTime }) => ({ windowStart: start, windowEnd: start + 10 * SECOND, auction, bidder, price, dateTime }));
    });
  },
  q8({ persons, auctions }) {
    const selling = new Set(auctions.map(({ seller, dateTime }) => `${seller} ${dateTime - (dateTime % (10 * SECOND))}`));
    return persons.flatMap(({ id, name, dateTime }) => {
      const start = dateTime - (dateTime % (10 * SECOND));
      return selling.has(`${id} ${start}`) ? [{ windowStart: start, windowEnd: start + 10 * SECOND, id, name }] : [];
    });
  },
};
