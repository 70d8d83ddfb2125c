import fc from 'fast-check';
import { expect, test } from 'vitest';
import { DEFAULT_MEDIA_TTL_MS, deadlineOf } from '../../src/media/deadline.ts';
import { HOUR, iso } from '../../src/time.ts';

test('a media lives three days from when it was sent', () => {
  expect(iso(deadlineOf({ receivedAt: '2026-06-15T11:00:00Z' }, DEFAULT_MEDIA_TTL_MS))).toBe(
    '2026-06-18T11:00:00.000Z',
  );
});

test('the deadline counts from the instant, whatever the digits after the second', () => {
  fc.assert(
    fc.property(fc.date({ min: new Date('2020-01-01'), max: new Date('2060-01-01'), noInvalidDate: true }), (date) => {
      expect(deadlineOf({ receivedAt: date.toISOString() }, HOUR)).toBe(date.getTime() + HOUR);
    }),
  );
});
