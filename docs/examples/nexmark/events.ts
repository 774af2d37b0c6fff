// Nexmark: the events of an auction house. People register, some of them open auctions, most events are bids.
//
// Times are epoch milliseconds, prices whole cents. Events come out of order by less than a second, so event time waits for one.

import { seconds, type WatermarkStrategy } from 'millrace';

export interface Person {
  readonly type: 'person';
  readonly id: number;
  readonly name: string;
  readonly emailAddress: string;
  readonly creditCard: string;
  readonly city: string;
  readonly state: string;
  readonly dateTime: number;
  readonly extra: string;
}

export interface Auction {
  readonly type: 'auction';
  readonly id: number;
  readonly itemName: string;
  readonly description: string;
  readonly initialBid: number;
  readonly reserve: number;
  readonly dateTime: number;
  /** The last moment at which it takes bids. */
  readonly expires: number;
  /** The id of a person. */
  readonly seller: number;
  readonly category: number;
  readonly extra: string;
}

export interface Bid {
  readonly type: 'bid';
  /** The id of an auction, which may come after the bid. */
  readonly auction: number;
  /** The id of a person. */
  readonly bidder: number;
  readonly price: number;
  readonly dateTime: number;
  readonly extra: string;
}

export type Event = Person | Auction | Bid;

export const isPerson = (event: Event): event is Person => event.type === 'person';
export const isAuction = (event: Event): event is Auction => event.type === 'auction';
export const isBid = (event: Event): event is Bid => event.type === 'bid';

export const eventTime: WatermarkStrategy<Event> = { timestamp: (event) => event.dateTime, outOfOrderness: seconds(1) };
