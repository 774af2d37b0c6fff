// A window by slices whose function throws when it fires by its timer: the error names the operator and the key of the window that fired, not one of those
// that fired with it.

import { expect, it } from 'vitest';
import { job, seconds, sliding } from '../../src/index.ts';

it('a firing that throws says whose window it was, after others of the same burst have fired', async () => {
  const seen: unknown[] = [];
  const failing = job('failing', (env) => {
    env
      .fromArray(
        'in',
        ['a', 'b', 'c'].map((name) => ({ name, at: 1000 })),
        { timestamp: (value) => value.at },
      )
      .keyBy((value) => value.name)
      .window(sliding(seconds(10), seconds(2)))
      .aggregate('names', {
        create: () => '',
        add: (_held, { name }) => name,
        merge: (_left, right) => right,
        result(name) {
          if (name === 'b') throw new Error('no b');
          return name;
        },
      })
      .forEach('seen', (value) => void seen.push(value));
  }).run({ restarts: false });
  await expect(failing).rejects.toMatchObject({ uid: 'names', message: expect.stringMatching(/"b".*no b/) });
});
