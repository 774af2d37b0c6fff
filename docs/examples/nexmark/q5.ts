// q5, hot items: which auctions had the most bids in the last 10 seconds, every 2 seconds? Counted for each auction in sliding windows, and compared in one
// window for each of their ends.

import { count, type Stream, seconds, sliding, tumbling } from 'millrace';
import { best } from './best.ts';
import { type Event, isBid } from './events.ts';
import { query } from './query.ts';

export interface HotItem {
  readonly windowStart: number;
  readonly windowEnd: number;
  readonly auction: number;
  /** Bids for it. */
  readonly num: number;
}

export function hotItems(events: Stream<Event>): Stream<HotItem> {
  return events
    .filter(isBid)
    .keyBy((bid) => bid.auction)
    .window(sliding(seconds(10), seconds(2)))
    .aggregate('bids', count())
    .map(({ key, start, end, value }): HotItem => ({ windowStart: start, windowEnd: end, auction: key, num: value }))
    .keyBy((item) => item.windowEnd)
    .window(tumbling(seconds(2)))
    .aggregate(
      'hottest',
      best((item) => item.num),
    )
    .flatMap(({ value }) => value);
}

export default query('q5', hotItems);
