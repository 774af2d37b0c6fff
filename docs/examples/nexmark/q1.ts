// q1, currency conversion: every bid, with its price in euros.

import type { Stream } from 'millrace';
import { type Bid, type Event, isBid } from './events.ts';
import { query } from './query.ts';

export function inEuros(events: Stream<Event>): Stream<Omit<Bid, 'type'>> {
  return events
    .filter(isBid)
    .map(({ auction, bidder, price, dateTime, extra }) => ({ auction, bidder, price: Math.floor((price * 908) / 1000), dateTime, extra }));
}

export default query('q1', inEuros);
