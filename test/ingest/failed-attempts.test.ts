import { expect, test } from 'vitest';
import { createFailedAttempts, type FailedAttempts } from '../../src/ingest/failed-attempts.ts';
import { MINUTE } from '../../src/time.ts';
import { testClock } from '../support/clock.ts';

function failTimes(attempts: FailedAttempts, address: string, count: number): (number | undefined)[] {
  return Array.from({ length: count }, () => attempts.note(address));
}

test('sixty failures a minute are let be, the next is told how long to wait, and then it begins anew', () => {
  const clock = testClock();
  const attempts = createFailedAttempts(clock.now);
  expect(failTimes(attempts, '10.0.0.1', 60).every((wait) => wait === undefined)).toBe(true);
  clock.advance(20_000);
  expect(attempts.note('10.0.0.1')).toBe(40);
  expect(attempts.note('10.0.0.2')).toBeUndefined();
  clock.advance(MINUTE - 20_000);
  expect(attempts.note('10.0.0.1')).toBeUndefined();
});

test.each([
  ['2001:db8:1:2::1', '2001:db8:1:2:ffff::9', true],
  ['2001:db8:1:2::1', '2001:db8:1:3::1', false],
  ['::ffff:10.0.0.1', '10.0.0.1', true],
])('%s and %s are of one network: %s', (one, other, same) => {
  const attempts = createFailedAttempts(() => 0);
  failTimes(attempts, one, 60);
  expect(attempts.note(other) !== undefined).toBe(same);
});

test('more addresses than it remembers push out the first, and no more than that', () => {
  const attempts = createFailedAttempts(() => 0);
  failTimes(attempts, '10.0.0.1', 61);
  for (let n = 0; n < 9_999; n += 1) attempts.note(`11.${n >> 16}.${(n >> 8) & 255}.${n & 255}`);
  expect(attempts.note('10.0.0.1')).toBeDefined();
  attempts.note('12.0.0.1');
  expect(attempts.note('10.0.0.1')).toBeUndefined();
});
