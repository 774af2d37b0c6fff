// The input of the Nexmark workloads: the recorded 100,000 events of test/data, repeated in passes that continue the stream. Pass j of n events adds j·n to
// all event times, j·n·3/50 to auction ids and j·n/50 to person ids.

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import type { Event } from '../../../docs/examples/nexmark/events.ts';
import type { Input } from './inputs.ts';

const GROUP = 50;
const AUCTIONS = 3;

export function events(): Input<Event> {
  const text = gunzipSync(readFileSync(fileURLToPath(new URL('../../data/events-100k.ndjson.gz', import.meta.url)))).toString('utf8');
  const recorded = text
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Event);
  const records = recorded.length;
  const again = (event: Event, pass: number): Event => {
    const ms = pass * records;
    const persons = ms / GROUP;
    const auctions = persons * AUCTIONS;
    if (event.type === 'bid') {
      const { type, auction, bidder, price, dateTime, extra } = event;
      return { type, auction: auction + auctions, bidder: bidder + persons, price, dateTime: dateTime + ms, extra };
    }
    if (event.type === 'person') {
      const { type, id, name, emailAddress, creditCard, city, state, dateTime, extra } = event;
      return { type, id: id + persons, name, emailAddress, creditCard, city, state, dateTime: dateTime + ms, extra };
    }
    const { type, id, itemName, description, initialBid, reserve, dateTime, expires, seller, category, extra } = event;
    return {
      type,
      id: id + auctions,
      itemName,
      description,
      initialBid,
      reserve,
      dateTime: dateTime + ms,
      expires: expires + ms,
      seller: seller + persons,
      category,
      extra,
    };
  };
  // Those of the first pass are held as they were parsed: a literal whose objects live long is allocated among the old ones by V8, also in `again`.
  return { records, make: (i) => (i < records ? recorded[i]! : again(recorded[i % records]!, Math.floor(i / records))), again };
}
