import { expect, it } from 'vitest';
import { peer } from '../../src/connectors/peers.ts';
import { rejection } from '../protocols/lab.ts';

it('a package that is not installed is named, with what installs it; an error inside of one that is stays what it is', async () => {
  const name = 'not-installed-anywhere';
  expect(await rejection(peer(name, () => import(name), 'postgres'))).toMatchObject({
    code: 'PACKAGE_MISSING',
    retryable: false,
    message: "'postgres' needs the package 'not-installed-anywhere', which is not installed. Run: npm install not-installed-anywhere.",
  });
  const broken = Object.assign(new Error("Cannot find package 'something-else'"), { code: 'ERR_MODULE_NOT_FOUND' });
  expect(await rejection(peer(name, () => Promise.reject(broken), 'postgres'))).toBe(broken);
});
