import type { Random } from '../../../src/time.ts';
import { clairvoyant, ours, PEERS, peerPolicy } from './policies.ts';
import { SCENARIOS, type Sizes } from './scenarios.ts';
import { type PolicyFactory, simulate } from './simulate.ts';

export const OURS = 'weixin-media-archiver';

export interface Row {
  readonly scenario: string;
  readonly policy: string;
  readonly media: number;
  readonly saved: number;
  /** Lost although the clairvoyant policy saves so many more. */
  readonly lostButSavable: number;
  readonly calls: number;
}

/** Runs every policy through every scenario, each from the same seed. */
export function* runAll(sizes: Sizes, seed: number): Generator<Row> {
  const policies: [name: string, factory: PolicyFactory][] = [
    [OURS, ours],
    ...PEERS.map((peer): [string, PolicyFactory] => [peer.name, peerPolicy(peer)]),
  ];
  for (const build of SCENARIOS) {
    const savable = simulate(build(sizes, seeded(seed)), clairvoyant, seeded(seed + 1)).archived;
    for (const [policy, factory] of policies) {
      const scenario = build(sizes, seeded(seed));
      const { archived, calls } = simulate(scenario, factory, seeded(seed + 1));
      const lostButSavable = Math.max(0, savable - archived);
      yield { scenario: scenario.name, policy, media: scenario.jobs.length, saved: archived, lostButSavable, calls };
    }
  }
}

/** Marsaglia's xorshift32: the same numbers for the same seed, on every machine. */
export function seeded(seed: number): Random {
  let state = seed | 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}
