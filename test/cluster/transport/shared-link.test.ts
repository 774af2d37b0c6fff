import { describe, expect, it } from 'vitest';
import { SharedLink } from '../../../src/cluster/transport/shared-link.ts';
import { MemoryLink } from './memory-link.ts';

describe('parts of one link', () => {
  it('that are over take nothing any more, and hold nothing of whoever had them', async () => {
    const [a, b] = MemoryLink.pair();
    const [ours, theirs] = [new SharedLink(a), new SharedLink(b)];
    const [part, other] = [ours.part(1), theirs.part(1)];
    const got: string[] = [];
    other.receive((frame) => void got.push(frame.toString()));
    other.drained = () => void got.push('drained');
    part.send(Buffer.from('one'));
    b.deliver();
    other.close();
    part.send(Buffer.from('two'));
    b.deliver();
    b.drain();
    expect(got).toEqual(['one']);
    expect(other.drained).toBeUndefined();
    expect(await other.closed).toBeUndefined();
    // Its number stays used.
    expect(theirs.part(1)).toBe(other);
  });

  it('are so many at most; whoever needs one more loses the link, and makes a new one', async () => {
    const [a] = MemoryLink.pair();
    const shared = new SharedLink(a);
    for (let number = 0; number < 1 << 16; number += 1) shared.part(number);
    expect(() => shared.part(1 << 16)).toThrowError(expect.objectContaining({ code: 'LINK_LOST', retryable: true }));
    expect(await shared.closed).toMatchObject({ code: 'LINK_LOST' });
  });
});
