import { afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { build, Place } from './millrace-process.ts';

let place: Place;
beforeAll(build, 180_000);
beforeEach(() => {
  place = new Place();
});
afterEach(() => place.remove());

const MODULE = `
import { job } from 'millrace';
export default job(process.argv[2] ?? 'planned', (env) => {
  env.fromArray('in', [1, 2]).map((n) => n).tag('same').rebalance().forEach('out', () => { throw new Error('it runs'); });
});
`;

it('millrace plan shows what a job will run as, in text, as a graph and as data, and runs nothing', async () => {
  const module = place.write('planned.mjs', MODULE);
  const text = (await place.run('plan', module, '--parallelism', '2')).stdout;
  expect(text.split('\n').slice(1)).toEqual(['in ×2: source in, map «same»', '  └ rebalance → out', 'out ×2: forEach out', '']);
  expect((await place.run('plan', module, '--graph')).stdout).toMatch(/^flowchart LR\n {2}v0\["in ×1/);
  expect(JSON.parse((await place.run('plan', module, '--json')).stdout)).toMatchObject({ edges: [{ from: 'in', to: 'out', exchange: 'rebalance' }] });
  expect((await place.run('plan', module, '--', 'other')).code).toBe(0);
});

it('millrace plan says what is wrong with a module or an option', async () => {
  const module = place.write('planned.mjs', MODULE);
  expect(await place.run('plan', 'nowhere.mjs')).toMatchObject({ code: 1, stderr: expect.stringContaining('There is no module') });
  expect(await place.run('plan', module, '--graph', '--json')).toMatchObject({ code: 2 });
  expect(await place.run('plan', module, '--parallelism', '0')).toMatchObject({ code: 2 });
  const wrong = place.write('wrong.mjs', MODULE.replace("'out'", "'in'"));
  expect(await place.run('plan', wrong)).toMatchObject({ code: 1, stderr: expect.stringContaining("'in' is used twice") });
});
