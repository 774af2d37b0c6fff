// q8, new users: who registered and opened an auction within the same 10 seconds? One row for each of them, however many auctions.

import { type Stream, seconds, tumbling } from 'millrace';
import { type Event, isAuction, isPerson } from './events.ts';
import { query } from './query.ts';

export interface NewSeller {
  readonly windowStart: number;
  readonly windowEnd: number;
  readonly id: number;
  readonly name: string;
}

export function newSellers(events: Stream<Event>): Stream<NewSeller> {
  return events
    .filter(isPerson)
    .keyBy((person) => person.id)
    .coGroup(events.filter(isAuction).keyBy((auction) => auction.seller))
    .window(tumbling(seconds(10)))
    .apply('new-sellers', (_seller, people, auctions, { start, end }) =>
      auctions.length === 0 ? [] : people.map(({ id, name }) => ({ windowStart: start, windowEnd: end, id, name })),
    );
}

export default query('q8', newSellers);
