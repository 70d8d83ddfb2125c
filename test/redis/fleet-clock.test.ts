import { afterEach, beforeEach, expect, test } from 'vitest';
import { createFleetClock } from '../../src/redis/fleet-clock.ts';
import { elapsed, HOUR, MINUTE, SECOND } from '../../src/time.ts';
import { testClock } from '../support/clock.ts';
import { openTestRedis, type TestRedis } from '../support/redis.ts';

let corner: TestRedis;

beforeEach(async () => {
  corner = await openTestRedis();
});

afterEach(() => corner[Symbol.asyncDispose]());

/** Redis runs on this machine, by the same clock; the rest is for a busy one. */
const NEAR_MS = 10 * SECOND;

test('it is the clock of this machine until Redis has been asked, and then that of Redis', async () => {
  const clock = createFleetClock(corner.redis, elapsed, () => Date.now() + HOUR);
  expect(Math.abs(clock.now() - Date.now() - HOUR)).toBeLessThan(NEAR_MS);
  expect(Math.abs((await clock.sync()) - HOUR)).toBeLessThan(NEAR_MS);
  expect(Math.abs(clock.now() - Date.now())).toBeLessThan(NEAR_MS);
});

test('it goes on evenly while the clock of this machine is set', () => {
  const system = testClock();
  const stopwatch = testClock(0);
  const clock = createFleetClock(corner.redis, stopwatch.now, system.now);
  const before = clock.now();
  system.advance(-HOUR);
  stopwatch.advance(MINUTE);
  expect(clock.now()).toBe(before + MINUTE);
});

test('an answer that took long is not believed', async () => {
  const system = testClock();
  let time = 0;
  const slow = (): number => {
    time += 2 * SECOND;
    return time;
  };
  const clock = createFleetClock(corner.redis, slow, system.now);
  await clock.sync();
  expect(Math.abs(clock.now() - system.now())).toBeLessThan(MINUTE);
});
