// q4, closing prices: what do the auctions of a category bring on average? An auction closes when event time has reached its end, at the highest bid that
// was made while it was open. Bids may come before their auction does: those wait. Each auction that closes gives a new average of its category.

import { type AggregateFunction, list, process, type Stream, value } from 'millrace';
import { type Auction, type Bid, type Event, isAuction, isBid } from './events.ts';
import { query } from './query.ts';

export interface CategoryPrice {
  readonly category: number;
  /** Auctions that have closed. */
  readonly count: number;
  readonly sum: number;
  readonly avg: number;
}

interface Offer {
  readonly price: number;
  readonly dateTime: number;
}
interface Closed {
  readonly category: number;
  readonly price: number;
}
interface Lot {
  readonly opens: number;
  readonly closes: number;
  readonly category: number;
  /** The highest bid so far; 0: none. */
  readonly price: number;
}

const isAuctionOrBid = (event: Event): event is Auction | Bid => isAuction(event) || isBid(event);

const closing = process<number, Auction | Bid, Closed>()({
  state: { lot: value<Lot | 'closed'>(), early: list<Offer>() },
  onRecord(event, ctx) {
    const { lot, early } = ctx.state;
    const held = lot.get();
    if (event.type === 'bid') {
      if (held === undefined) early.add({ price: event.price, dateTime: event.dateTime });
      else if (held !== 'closed' && raises(held, event)) lot.set(raised(held, event));
      return;
    }
    let opened: Lot = { opens: event.dateTime, closes: event.expires, category: event.category, price: 0 };
    for (const offer of early) if (raises(opened, offer)) opened = raised(opened, offer);
    early.clear();
    lot.set(opened);
    ctx.timers.event.set(event.expires);
  },
  onTimer(_timer, ctx) {
    const held = ctx.state.lot.get();
    if (held === undefined || held === 'closed') return;
    if (held.price > 0) ctx.emit({ category: held.category, price: held.price });
    // Whatever is offered from now on is too late, and must not wait for another auction.
    ctx.state.lot.set('closed');
  },
});

function raises(lot: Lot, { price, dateTime }: Offer): boolean {
  return price > lot.price && dateTime >= lot.opens && dateTime <= lot.closes;
}

function raised({ opens, closes, category }: Lot, { price }: Offer): Lot {
  return { opens, closes, category, price };
}

const averages: AggregateFunction<Closed, { count: number; sum: number }, { count: number; sum: number; avg: number }> = {
  create: () => ({ count: 0, sum: 0 }),
  add: ({ count, sum }, { price }) => ({ count: count + 1, sum: sum + price }),
  merge: (a, b) => ({ count: a.count + b.count, sum: a.sum + b.sum }),
  result: ({ count, sum }) => ({ count, sum, avg: Math.floor(sum / count) }),
};

export function categoryPrices(events: Stream<Event>): Stream<CategoryPrice> {
  return events
    .filter(isAuctionOrBid)
    .keyBy((event) => (event.type === 'bid' ? event.auction : event.id))
    .process('closing', closing)
    .keyBy((closed) => closed.category)
    .aggregate('averages', averages)
    .map(({ key, value: { count, sum, avg } }) => ({ category: key, count, sum, avg }));
}

export default query('q4', categoryPrices);
