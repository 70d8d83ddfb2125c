import { expect, test } from 'vitest';
import { createSeldomLog } from '../../src/ingest/seldom.ts';
import { MINUTE } from '../../src/time.ts';
import { testClock } from '../support/clock.ts';

test('writes the first line, then one a minute, with how many were left out since; each key for itself', () => {
  const clock = testClock();
  const lines: unknown[] = [];
  const seldom = createSeldomLog({ warn: (...line: unknown[]) => void lines.push(line) }, clock.now);
  const warn = (key: string, n: number, message = 'm'): void => seldom.warn(key, { n }, message);
  warn('a', 1);
  warn('a', 2);
  warn('b', 3);
  warn('a', 4, 'another');
  clock.advance(MINUTE - 1);
  warn('a', 5);
  expect(lines.splice(0)).toEqual([
    [{ n: 1, omitted: 0 }, 'm'],
    [{ n: 3, omitted: 0 }, 'm'],
    [{ n: 4, omitted: 0 }, 'another'],
  ]);
  clock.advance(1);
  warn('a', 6);
  warn('a', 7);
  warn('b', 8);
  expect(lines.splice(0)).toEqual([
    [{ n: 6, omitted: 2 }, 'm'],
    [{ n: 8, omitted: 0 }, 'm'],
  ]);
  clock.advance(MINUTE);
  warn('a', 9);
  expect(lines).toEqual([[{ n: 9, omitted: 1 }, 'm']]);
});
