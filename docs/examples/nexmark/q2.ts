// q2, selection: the bids for some of the auctions.

import type { Stream } from 'millrace';
import { type Event, isBid } from './events.ts';
import { query } from './query.ts';

export function selectedBids(events: Stream<Event>): Stream<{ auction: number; price: number }> {
  return events
    .filter(isBid)
    .filter((bid) => bid.auction % 123 === 0)
    .map(({ auction, price }) => ({ auction, price }));
}

export default query('q2', selectedBids);
