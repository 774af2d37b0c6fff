// Counts words: the smallest job there is. `npx millrace run docs/examples/word-count.ts`

import { job } from 'millrace';

const text = ['the mill turns', 'the water turns the mill'];

export default job(
  'word-count',
  (env) => {
    env
      .fromArray('lines', text)
      .flatMap((line) => line.split(' '))
      .map((word) => ({ word, n: 1 }))
      .keyBy((count) => count.word)
      .reduce('counts', (left, right) => ({ word: left.word, n: left.n + right.n }))
      .forEach('out', ({ word, n }) => console.log(`${word}: ${n}`));
  },
  // Nothing to resume: each run counts anew.
  { checkpoints: false },
);
