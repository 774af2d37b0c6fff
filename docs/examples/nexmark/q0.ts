// q0, pass-through: every bid, unchanged. What the engine itself costs.

import type { Stream } from 'millrace';
import { type Bid, type Event, isBid } from './events.ts';
import { query } from './query.ts';

export function bids(events: Stream<Event>): Stream<Omit<Bid, 'type'>> {
  return events.filter(isBid).map(({ auction, bidder, price, dateTime, extra }) => ({ auction, bidder, price, dateTime, extra }));
}

export default query('q0', bids);
