// q3, local items: who sells something of category 10 in Oregon, Idaho or California? A join without a window: sellers and their auctions come in any
// order, however far apart. The auctions of a seller who has not come wait for him; those of sellers from elsewhere wait for ever.

import { list, process, type Stream, value } from 'millrace';
import type { Auction, Event, Person } from './events.ts';
import { query } from './query.ts';

export interface LocalItem {
  readonly name: string;
  readonly city: string;
  readonly state: string;
  /** Of the auction. */
  readonly id: number;
}

const STATES = new Set(['OR', 'ID', 'CA']);

function isWanted(event: Event): event is Person | Auction {
  if (event.type === 'person') return STATES.has(event.state);
  return event.type === 'auction' && event.category === 10;
}

const sellers = process<number, Person | Auction, LocalItem>()({
  state: { seller: value<{ name: string; city: string; state: string }>(), waiting: list<number>() },
  onRecord(event, ctx) {
    const { seller, waiting } = ctx.state;
    if (event.type === 'person') {
      const { name, city, state } = event;
      seller.set({ name, city, state });
      for (const id of waiting) ctx.emit({ name, city, state, id });
      waiting.clear();
      return;
    }
    const known = seller.get();
    if (known === undefined) waiting.add(event.id);
    else ctx.emit({ ...known, id: event.id });
  },
});

export function localItems(events: Stream<Event>): Stream<LocalItem> {
  return events
    .filter(isWanted)
    .keyBy((event) => (event.type === 'person' ? event.id : event.seller))
    .process('sellers', sellers);
}

export default query('q3', localItems);
