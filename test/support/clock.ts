import type { Clock, Random } from '../../src/time.ts';

/** A clock that stands still until it is moved. */
export interface TestClock {
  readonly now: Clock;
  advance(ms: number): void;
}

export function testClock(startAt: string | number = '2026-06-15T12:00:00Z'): TestClock {
  let time = typeof startAt === 'number' ? startAt : Date.parse(startAt);
  return {
    now: () => time,
    advance: (ms) => {
      time += ms;
    },
  };
}

/** Chance that isn't: always the same share of the way. */
export function always(value: number): Random {
  return () => value;
}
