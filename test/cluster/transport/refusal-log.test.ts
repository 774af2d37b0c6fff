import { expect, it } from 'vitest';
import { refused } from '../../../src/cluster/transport/handshake.ts';
import { RefusalLog } from '../../../src/cluster/transport/refusal-log.ts';

it('says who was refused, and why, once a minute for each, with how often it was since', () => {
  const said: unknown[] = [];
  const nothing = (): void => {};
  let now = 5;
  const log = new RefusalLog({ debug: nothing, info: nothing, warn: (fields: unknown) => void said.push(fields), error: nothing }, () => now);
  const [secret, garbage] = [refused('secret', 'x', 'us'), refused('garbage', 'x', 'us')];
  for (let i = 0; i < 10; i++) log.say('1.1.1.1', secret);
  log.say('1.1.1.1', garbage);
  log.say('2.2.2.2', secret);
  now += 60_000;
  log.say('1.1.1.1', secret);
  const of = (address: string, repeated: number) => ({ address, code: 'LINK_REFUSED', repeated });
  expect(said).toEqual([of('1.1.1.1', 0), of('1.1.1.1', 0), of('2.2.2.2', 0), of('1.1.1.1', 9)]);
});

it('is not filled by strangers', () => {
  let lines = 0;
  const nothing = (): void => {};
  const count = (): void => {
    lines += 1;
  };
  const log = new RefusalLog({ debug: nothing, info: nothing, warn: count, error: nothing }, () => 1);
  for (let i = 0; i < 5000; i++) log.say(`10.0.${i >> 8}.${i & 255}`, refused('secret', 'x', 'us'));
  expect(lines).toBe(5000);
  // The newest are remembered.
  log.say('10.0.19.135', refused('secret', 'x', 'us'));
  expect(lines).toBe(5000);
});
