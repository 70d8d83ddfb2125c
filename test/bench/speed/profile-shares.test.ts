import { describe, expect, it } from 'vitest';
import { sharesOf } from './profile-shares.ts';

const frame = (functionName: string, url = '') => ({ functionName, url });
const ROOT = 1;
const IDLE = 2;
const OURS = 3;
const WRITE = 4;
const PACKAGE = 5;
const HASH = 6;
const NESTED = 7;
const TIME = 8;
const WORKER = 9;
const GARBAGE = 10;
const PROGRAM = 11;
const NODES = [
  { id: ROOT, callFrame: frame('(root)'), children: [IDLE, OURS, GARBAGE, PROGRAM] },
  { id: IDLE, callFrame: frame('(idle)') },
  {
    id: OURS,
    callFrame: frame('store', 'file:///app/src/archive/archive-media.ts'),
    children: [WRITE, PACKAGE, NESTED, TIME, WORKER],
  },
  { id: WRITE, callFrame: frame('writev') },
  { id: PACKAGE, callFrame: frame('sign', 'file:///app/node_modules/@smithy/signature-v4/index.js'), children: [HASH] },
  { id: HASH, callFrame: frame('update', 'node:internal/crypto/hash') },
  { id: NESTED, callFrame: frame('token', 'file:///app/src/weixin/credentials/stable-token.ts') },
  { id: TIME, callFrame: frame('iso', 'file:///app/src/time.ts') },
  { id: WORKER, callFrame: frame('main', 'file:///app/workers/archive.ts') },
  { id: GARBAGE, callFrame: frame('(garbage collector)') },
  { id: PROGRAM, callFrame: frame('(program)') },
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

  const cases = [
    ['in a folder below a folder of src', NESTED, 'src/weixin'],
    ['in a file of src itself', TIME, 'src'],
    ['in a file of workers', WORKER, 'workers'],
    ['in the garbage collector', GARBAGE, 'V8: garbage collection'],
    ['in (program)', PROGRAM, 'V8: no function of JavaScript'],
  ] as const;
  it.each(cases)('a sample %s has an owner of its own, whoever called', (_where, sample, owner) => {
    expect(sharesOf(profileOf(sample), 0)).toEqual([{ owner, share: 1 }]);
  });

  it('tells owners together that have less than one in two hundred', () => {
    const samples = [...Array<number>(991).fill(OURS), ...Array<number>(5).fill(TIME), HASH, HASH, PACKAGE, PACKAGE];
    expect(sharesOf(profileOf(...samples), 0)).toEqual([
      { owner: 'src/archive', share: 0.991 },
      { owner: 'src', share: 0.005 },
      { owner: '2 others', share: 0.004 },
    ]);
  });

  it('leaves out what was before', () => {
    expect(sharesOf(profileOf(HASH, HASH, OURS), 1_030)[0]).toEqual({ owner: 'src/archive', share: 1 });
  });
});
