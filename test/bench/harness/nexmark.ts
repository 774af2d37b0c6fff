// The queries of Nexmark as workloads: the programs of docs/examples/nexmark, and the loop that one would write by hand for each.
//
// Events come at most 94 ms out of order. A loop closes a window, or an auction, once it has seen an event two seconds behind its end, and whatever is open
// when the events end; q8's pairs, q3's and q4's waiting records stay for as long as the programs keep them.

import type { Stream } from 'millrace';
import { type Auction, type Bid, type Event, eventTime } from '../../../docs/examples/nexmark/events.ts';
import { bids } from '../../../docs/examples/nexmark/q0.ts';
import { inEuros } from '../../../docs/examples/nexmark/q1.ts';
import { selectedBids } from '../../../docs/examples/nexmark/q2.ts';
import { type LocalItem, localItems } from '../../../docs/examples/nexmark/q3.ts';
import { type CategoryPrice, categoryPrices } from '../../../docs/examples/nexmark/q4.ts';
import { type HotItem, hotItems } from '../../../docs/examples/nexmark/q5.ts';
import { type HighestBid, highestBids } from '../../../docs/examples/nexmark/q7.ts';
import { type NewSeller, newSellers } from '../../../docs/examples/nexmark/q8.ts';
import { events } from './events.ts';
import type { Workload } from './workloads.ts';

type Loop = Workload<Event>['loop'];

const LATE = 2000;
const TWO = 2000;
const TEN = 10_000;

const q0: Loop = async (batches, write) => {
  for await (const { values } of batches) {
    const results: Omit<Bid, 'type'>[] = [];
    for (const event of values) {
      if (event.type !== 'bid') continue;
      const { auction, bidder, price, dateTime, extra } = event;
      results.push({ auction, bidder, price, dateTime, extra });
    }
    write(results);
  }
};

const q1: Loop = async (batches, write) => {
  for await (const { values } of batches) {
    const results: Omit<Bid, 'type'>[] = [];
    for (const event of values) {
      if (event.type !== 'bid') continue;
      const { auction, bidder, price, dateTime, extra } = event;
      results.push({ auction, bidder, price: Math.floor((price * 908) / 1000), dateTime, extra });
    }
    write(results);
  }
};

const q2: Loop = async (batches, write) => {
  for await (const { values } of batches) {
    const results: { auction: number; price: number }[] = [];
    for (const event of values) {
      if (event.type === 'bid' && event.auction % 123 === 0) results.push({ auction: event.auction, price: event.price });
    }
    write(results);
  }
};

const q3: Loop = async (batches, write) => {
  const sellers = new Map<number, { name: string; city: string; state: string }>();
  const waiting = new Map<number, number[]>();
  for await (const { values } of batches) {
    const results: LocalItem[] = [];
    for (const event of values) {
      if (event.type === 'person') {
        const { id, name, city, state } = event;
        if (state !== 'OR' && state !== 'ID' && state !== 'CA') continue;
        sellers.set(id, { name, city, state });
        const held = waiting.get(id);
        if (held === undefined) continue;
        for (const auction of held) results.push({ name, city, state, id: auction });
        waiting.delete(id);
      } else if (event.type === 'auction' && event.category === 10) {
        const seller = sellers.get(event.seller);
        if (seller !== undefined) results.push({ name: seller.name, city: seller.city, state: seller.state, id: event.id });
        else {
          const held = waiting.get(event.seller);
          if (held === undefined) waiting.set(event.seller, [event.id]);
          else held.push(event.id);
        }
      }
    }
    write(results);
  }
};

interface Lot {
  readonly opens: number;
  readonly closes: number;
  readonly category: number;
  price: number;
}

const q4: Loop = async (batches, write) => {
  const lots = new Map<number, Lot | 'closed'>();
  const early = new Map<number, Bid[]>();
  const totals = new Map<number, { count: number; sum: number }>();
  let open: Auction[] = [];
  let looked = 0;
  let results: CategoryPrice[] = [];
  const close = (until: number): void => {
    looked = until;
    open = open.filter(({ id, expires }) => {
      if (expires > until) return true;
      const { category, price } = lots.get(id) as Lot;
      lots.set(id, 'closed');
      if (price === 0) return false;
      const total = totals.get(category) ?? { count: 0, sum: 0 };
      totals.set(category, total);
      total.count += 1;
      total.sum += price;
      results.push({ category, count: total.count, sum: total.sum, avg: Math.floor(total.sum / total.count) });
      return false;
    });
  };
  const offer = (lot: Lot, { price, dateTime }: Bid): void => {
    if (price > lot.price && dateTime >= lot.opens && dateTime <= lot.closes) lot.price = price;
  };
  for await (const { values } of batches) {
    for (const event of values) {
      if (event.type === 'bid') {
        const lot = lots.get(event.auction);
        if (lot === undefined) {
          const held = early.get(event.auction);
          if (held === undefined) early.set(event.auction, [event]);
          else held.push(event);
        } else if (lot !== 'closed') offer(lot, event);
      } else if (event.type === 'auction') {
        const lot: Lot = { opens: event.dateTime, closes: event.expires, category: event.category, price: 0 };
        lots.set(event.id, lot);
        open.push(event);
        const held = early.get(event.id);
        if (held !== undefined) {
          for (const bid of held) offer(lot, bid);
          early.delete(event.id);
        }
        if (event.dateTime - LATE > looked + 100) close(event.dateTime - LATE);
      }
    }
    write(results);
    results = [];
  }
  close(Number.POSITIVE_INFINITY);
  write(results);
};

const q5: Loop = async (batches, write) => {
  // Bids for each auction, by slice of two seconds.
  const slices = new Map<number, Map<number, number>>();
  let results: HotItem[] = [];
  let next = Number.NaN;
  let current = Number.NaN;
  let counts = new Map<number, number>();
  const fire = (until: number): void => {
    for (; next <= until; next += TWO) {
      const sums = new Map<number, number>();
      let most = 0;
      for (let start = next - TEN; start < next; start += TWO) {
        const slice = slices.get(start);
        if (slice === undefined) continue;
        for (const [auction, num] of slice) {
          const sum = (sums.get(auction) ?? 0) + num;
          sums.set(auction, sum);
          if (sum > most) most = sum;
        }
      }
      for (const [auction, num] of sums) if (num === most) results.push({ windowStart: next - TEN, windowEnd: next, auction, num });
      slices.delete(next - TEN);
    }
  };
  let newest = 0;
  for await (const { values } of batches) {
    for (const event of values) {
      if (event.type !== 'bid') continue;
      const { auction, dateTime } = event;
      const start = dateTime - (dateTime % TWO);
      if (start !== current) {
        if (Number.isNaN(next)) next = start + TWO;
        let slice = slices.get(start);
        if (slice === undefined) {
          slice = new Map();
          slices.set(start, slice);
          newest = start;
          fire(start - LATE);
        }
        current = start;
        counts = slice;
      }
      counts.set(auction, (counts.get(auction) ?? 0) + 1);
    }
    write(results);
    results = [];
  }
  fire(newest + TEN);
  write(results);
};

const q7: Loop = async (batches, write) => {
  const windows = new Map<number, { most: number; bids: Bid[] }>();
  let results: HighestBid[] = [];
  const fire = (until: number): void => {
    for (const [start, { bids }] of windows) {
      if (start + TEN > until) continue;
      for (const { auction, bidder, price, dateTime } of bids) results.push({ windowStart: start, windowEnd: start + TEN, auction, bidder, price, dateTime });
      windows.delete(start);
    }
  };
  let current = Number.NaN;
  let window: { most: number; bids: Bid[] } = { most: 0, bids: [] };
  for await (const { values } of batches) {
    for (const event of values) {
      if (event.type !== 'bid') continue;
      const start = event.dateTime - (event.dateTime % TEN);
      if (start !== current) {
        const held = windows.get(start) ?? { most: -1, bids: [] };
        windows.set(start, held);
        fire(start - LATE);
        current = start;
        window = held;
      }
      if (event.price > window.most) {
        window.most = event.price;
        window.bids = [event];
      } else if (event.price === window.most) window.bids.push(event);
    }
    write(results);
    results = [];
  }
  fire(Number.POSITIVE_INFINITY);
  write(results);
};

const q8: Loop = async (batches, write) => {
  const windows = new Map<number, { names: Map<number, string>; sellers: Set<number> }>();
  let results: NewSeller[] = [];
  const fire = (until: number): void => {
    for (const [start, { names, sellers }] of windows) {
      if (start + TEN > until) continue;
      for (const [id, name] of names) if (sellers.has(id)) results.push({ windowStart: start, windowEnd: start + TEN, id, name });
      windows.delete(start);
    }
  };
  for await (const { values } of batches) {
    for (const event of values) {
      if (event.type === 'bid') continue;
      const start = event.dateTime - (event.dateTime % TEN);
      let window = windows.get(start);
      if (window === undefined) {
        window = { names: new Map(), sellers: new Set() };
        windows.set(start, window);
        fire(start - LATE);
      }
      if (event.type === 'person') window.names.set(event.id, event.name);
      else window.sellers.add(event.seller);
    }
    write(results);
    results = [];
  }
  fire(Number.POSITIVE_INFINITY);
  write(results);
};

function workload(name: string, program: (events: Stream<Event>) => Stream<unknown>, loop: Loop): Workload<Event> {
  return {
    name,
    input: events,
    build(env, source, sink) {
      program(env.source('events', source, eventTime)).sink('results', sink);
    },
    loop,
  };
}

export const NEXMARK: Readonly<Record<string, Workload<Event>>> = {
  'nexmark:q0': workload('nexmark:q0', bids, q0),
  'nexmark:q1': workload('nexmark:q1', inEuros, q1),
  'nexmark:q2': workload('nexmark:q2', selectedBids, q2),
  'nexmark:q3': workload('nexmark:q3', localItems, q3),
  'nexmark:q4': workload('nexmark:q4', categoryPrices, q4),
  'nexmark:q5': workload('nexmark:q5', hotItems, q5),
  'nexmark:q7': workload('nexmark:q7', highestBids, q7),
  'nexmark:q8': workload('nexmark:q8', newSellers, q8),
};
