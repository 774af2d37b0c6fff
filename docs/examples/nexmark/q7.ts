// q7, highest bid: the bids with the highest price of each 10 seconds. One window over all bids, in one instance.

import { type Stream, seconds, tumbling } from 'millrace';
import { best } from './best.ts';
import { type Bid, type Event, isBid } from './events.ts';
import { query } from './query.ts';

export interface HighestBid {
  readonly windowStart: number;
  readonly windowEnd: number;
  readonly auction: number;
  readonly bidder: number;
  readonly price: number;
  readonly dateTime: number;
}

export function highestBids(events: Stream<Event>): Stream<HighestBid> {
  return events
    .filter(isBid)
    .windowAll(tumbling(seconds(10)))
    .aggregate(
      'highest',
      best((bid: Bid) => bid.price),
    )
    .flatMap(({ start, end, value }) =>
      value.map(({ auction, bidder, price, dateTime }) => ({ windowStart: start, windowEnd: end, auction, bidder, price, dateTime })),
    );
}

export default query('q7', highestBids);
