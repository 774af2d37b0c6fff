import { job, type Plan, planGraph, planText, tumbling } from 'millrace';
import { describe, expect, it } from 'vitest';

const program = job(
  'shown',
  (env) => {
    const left = env.fromArray('left', [1], { timestamp: (n) => n }).map((n) => n + 1);
    left.tag('add "one"\n<b>');
    const right = env.fromArray('right', [2]).parallelism(1);
    left
      .connect(right.broadcast())
      .process('joined', { onLeft() {}, onRight() {} })
      .forEach('joined-out', () => {});
    const windows = left
      .keyBy((n) => n)
      .window(tumbling(10))
      .reduce('sums', (a, b) => a + b);
    windows.forEach('sums-out', () => {});
    windows
      .late()
      .rebalance()
      .forEach('late-out', () => {})
      .parallelism(1);
    left
      .onError('skip')
      .deadLetters()
      .rebalance()
      .forEach('letters', () => {});
  },
  { parallelism: 3 },
);

describe('a plan', () => {
  const plan = program.plan();

  it('as text shows vertices with their instances, operators and tags, and how records leave them', () => {
    expect(planText(plan).split('\n')).toEqual([
      `plan ${plan.hash}`,
      'left ×3: source left, map «add "one" <b>»',
      '  ├ forward → joined',
      '  ├ hash → sums',
      '  └ dead-letters: rebalance → letters',
      'right ×1: source right',
      '  └ broadcast, right input → joined',
      'joined ×3: process joined, forEach joined-out',
      'sums ×3: window sums, forEach sums-out',
      '  └ late: rebalance → late-out',
      'late-out ×1: forEach late-out',
      'letters ×3: forEach letters',
    ]);
  });

  it('as a graph says the same in the language of Mermaid, whatever stands in a tag', () => {
    expect(planGraph(plan).split('\n')).toEqual([
      'flowchart LR',
      '  v0["left ×3<br>source left<br>map «add #34;one#34; #60;b#62;»"]',
      '  v1["right ×1<br>source right"]',
      '  v2["joined ×3<br>process joined<br>forEach joined-out"]',
      '  v3["sums ×3<br>window sums<br>forEach sums-out"]',
      '  v4["late-out ×1<br>forEach late-out"]',
      '  v5["letters ×3<br>forEach letters"]',
      '  v0 -->|"forward"| v2',
      '  v1 -->|"broadcast, right input"| v2',
      '  v0 -->|"hash"| v3',
      '  v3 -->|"late: rebalance"| v4',
      '  v0 -->|"dead-letters: rebalance"| v5',
    ]);
  });

  it('survives JSON, also one that was written without tags', () => {
    expect(planText(JSON.parse(JSON.stringify(plan)) as Plan)).toBe(planText(plan));
    const bare: Plan = { hash: 'x', vertices: [{ id: 'in', uids: ['in'], chain: ['source in'], parallelism: 1 }], edges: [] };
    expect(planText(bare)).toBe('plan x\nin ×1: source in');
    expect(planGraph(bare)).toBe('flowchart LR\n  v0["in ×1<br>source in"]');
  });

  it('has the same hash whatever its tags say', () => {
    const tagged = (tag: string) =>
      job('tagged', (env) => {
        env
          .fromArray('in', [1])
          .map((n) => n)
          .tag(tag)
          .forEach('out', () => {});
      }).plan();
    expect(tagged('a').hash).toBe(tagged('b').hash);
    expect(planText(tagged('a'))).not.toBe(planText(tagged('b')));
  });
});
