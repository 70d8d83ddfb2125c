import { expect, test } from 'vitest';
import { createRecently } from '../../src/ingest/recently.ts';
import { MINUTE } from '../../src/time.ts';
import { testClock } from '../support/clock.ts';

test('remembers for so long, and no longer', () => {
  const clock = testClock();
  const recently = createRecently(MINUTE, 10, clock.now);
  expect(recently.has('a')).toBe(false);
  recently.note('a');
  clock.advance(MINUTE - 1);
  expect([recently.has('a'), recently.has('b')]).toEqual([true, false]);
  clock.advance(1);
  expect(recently.has('a')).toBe(false);
});

test('a clock that is set back by hours silences nothing for hours', () => {
  const clock = testClock();
  const recently = createRecently(MINUTE, 10, clock.now);
  recently.note('a');
  clock.advance(-60 * MINUTE);
  expect(recently.has('a')).toBe(false);
});

test('remembers so many, and those that were noted last', () => {
  const recently = createRecently(MINUTE, 3, testClock().now);
  for (const key of ['a', 'b', 'c', 'a', 'd']) recently.note(key);
  expect(['a', 'b', 'c', 'd'].filter(recently.has)).toEqual(['a', 'c', 'd']);
});
