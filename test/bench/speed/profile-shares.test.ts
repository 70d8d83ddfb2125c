import { describe, expect, it } from 'vitest';
import { sharesOf } from './profile-shares.ts';

const frame = (functionName: string, url = '') => ({ functionName, url });
const ROOT = 1;
const IDLE = 2;
const OURS = 3;
const WRITE = 4;
const PACKAGE = 5;
const HASH = 6;
const NODES = [
  { id: ROOT, callFrame: frame('(root)'), children: [IDLE, OURS] },
  { id: IDLE, callFrame: frame('(idle)') },
  { id: OURS, callFrame: frame('store', 'file:///app/src/archive/archive-media.ts'), children: [WRITE, PACKAGE] },
  { id: WRITE, callFrame: frame('writev') },
  { id: PACKAGE, callFrame: frame('sign', 'file:///app/node_modules/@smithy/signature-v4/index.js'), children: [HASH] },
  { id: HASH, callFrame: frame('update', 'node:internal/crypto/hash') },
];

describe('sharesOf', () => {
  const profileOf = (...samples: number[]) => ({
    nodes: NODES,
    samples,
    timeDeltas: samples.map(() => 10),
    startTime: 1_000,
  });

  it('counts a sample for whose code it is in, or who called it last', () => {
    const shares = sharesOf(profileOf(OURS, WRITE, PACKAGE, HASH, ROOT, IDLE, IDLE), 0);
    expect(Object.fromEntries(shares.map(({ owner, share }) => [owner, share]))).toEqual({
      'src/archive': 0.4,
      '@smithy/signature-v4': 0.2,
      'node:crypto': 0.2,
      'Node.js by itself': 0.2,
    });
  });

  it('leaves out what was before', () => {
    expect(sharesOf(profileOf(HASH, HASH, OURS), 1_030)[0]).toEqual({ owner: 'src/archive', share: 1 });
  });
});
