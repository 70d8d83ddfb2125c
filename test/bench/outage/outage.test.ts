import { describe, expect, test } from 'vitest';
import { OURS, runAll } from './run.ts';
import type { Sizes } from './scenarios.ts';

/** The scenarios of `npm run bench:outage` with fewer media, and as many fewer slots. */
const SMALL: Sizes = { media: 500, backlog: 5_000, dailyQuota: 2_000, behind: 40_000, backfill: 500, slots: 2 };

describe.each([1, 7])('with the seed %i', (seed) => {
  const rows = [...runAll(SMALL, seed)];

  test('our policy loses nothing that could have been saved', () => {
    const own = rows.filter(({ policy }) => policy === OURS);
    expect(own.length).toBeGreaterThanOrEqual(11);
    expect(own.filter(({ lostButSavable }) => lostButSavable > 0)).toEqual([]);
  });

  test('every other policy loses something: the scenarios are hard', () => {
    const losses = Map.groupBy(
      rows.filter(({ policy }) => policy !== OURS),
      ({ policy }) => policy,
    );
    const harmless = [...losses].filter(([, of]) => of.every(({ lostButSavable }) => lostButSavable === 0));
    expect(harmless.map(([policy]) => policy)).toEqual([]);
  });
});
