import fc from 'fast-check';
import { expect, test } from 'vitest';
import { deadlineOfPriority, priorityOf } from '../../src/queue/priority.ts';
import { MINUTE } from '../../src/time.ts';

const BULLMQ_MAX_PRIORITY = 2 ** 21 - 1;
const BUCKET_MS = MINUTE;

const FROM = Date.parse('2026-01-02T00:00:00Z');
const TO = Date.parse('2029-12-27T00:00:00Z');
const deadlines = fc.integer({ min: FROM, max: TO });
/** Whatever a clock or a producer may come up with. */
const anyTimes = fc.integer({ min: Date.parse('0000-01-01T00:00:00Z'), max: Date.parse('9999-12-31T23:59:59Z') });

test('every deadline has a priority, which BullMQ accepts and does not run before all others', () => {
  fc.assert(
    fc.property(anyTimes, (deadline) => {
      const priority = priorityOf(deadline);
      expect(Number.isInteger(priority)).toBe(true);
      expect(priority).toBeGreaterThanOrEqual(1);
      expect(priority).toBeLessThanOrEqual(BULLMQ_MAX_PRIORITY);
    }),
  );
});

test('an earlier deadline never comes after a later one', () => {
  fc.assert(
    fc.property(anyTimes, anyTimes, (one, other) => {
      expect(priorityOf(Math.min(one, other))).toBeLessThanOrEqual(priorityOf(Math.max(one, other)));
    }),
  );
});

test('until the end of 2029, deadlines a minute apart are told from each other', () => {
  fc.assert(
    fc.property(deadlines, fc.integer({ min: BUCKET_MS, max: TO - FROM }), (deadline, later) => {
      fc.pre(deadline + later <= TO);
      expect(priorityOf(deadline)).toBeLessThan(priorityOf(deadline + later));
    }),
  );
});

test('a priority tells the deadline, never as too late and within a minute', () => {
  fc.assert(
    fc.property(deadlines, (deadline) => {
      const told = deadlineOfPriority(priorityOf(deadline));
      expect(told).toBeLessThanOrEqual(deadline);
      expect(deadline - told).toBeLessThan(BUCKET_MS);
    }),
  );
});

test('jobs that wait in Redis keep their order over releases', () => {
  expect(priorityOf(Date.parse('2026-06-18T11:00:00Z'))).toBe(242_580);
  expect(priorityOf(Date.parse('2028-02-29T23:59:00Z'))).toBe(1_137_599);
});
