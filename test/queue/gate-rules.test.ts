import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { FAILURES, type FailureCode } from '../../src/failure.ts';
import {
  GATE_RULES,
  type GateReason,
  isGateReason,
  nextMidnightInBeijing,
  nextProbeAt,
  passedTheGate,
} from '../../src/queue/gate-rules.ts';
import { DAY, HOUR, iso, MINUTE, SECOND } from '../../src/time.ts';
import { always } from '../support/clock.ts';

const codes = Object.keys(FAILURES) as FailureCode[];
const reasons = Object.keys(GATE_RULES) as GateReason[];
const times = fc.integer({ min: Date.parse('2026-01-01T00:00:00Z'), max: Date.parse('2046-01-01T00:00:00Z') });
const luck = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });

test.each(codes)('%s closes the gate just if its action is to wait', (code) => {
  expect(isGateReason(code)).toBe(FAILURES[code].action === 'wait');
});

test.each(['hd-voice-refused', 'token-service-failed', 'cloud-call-not-ready'] as const)(
  '%s neither closes a gate nor opens one',
  (code) => {
    expect([isGateReason(code), passedTheGate(code)]).toEqual([false, false]);
  },
);

describe('the next probe', () => {
  test.each(reasons)('of %s comes within its hour, and never at once', (reason) => {
    fc.assert(
      fc.property(times, luck, (now, share) => {
        const waitMs = nextProbeAt(reason, now, always(share)) - now;
        expect(waitMs).toBeGreaterThan(0);
        expect(waitMs).toBeLessThanOrEqual(HOUR + 5 * MINUTE);
        if (GATE_RULES[reason].renewedAtMidnight !== true) expect(waitMs).toBeGreaterThanOrEqual(MINUTE);
      }),
    );
  });

  test.each(reasons)('of %s is drawn, so that apps closed together are not probed together', (reason) => {
    const now = Date.parse('2026-06-15T12:00:00Z');
    const spread = nextProbeAt(reason, now, always(0.999)) - nextProbeAt(reason, now, always(0));
    expect(spread).toBeGreaterThanOrEqual(9 * SECOND);
  });

  test('of an exhausted quota comes at midnight in Beijing, when that is sooner', () => {
    const before = Date.parse('2026-06-15T15:40:00Z');
    expect(iso(nextProbeAt('quota-exhausted', before, always(0)))).toBe('2026-06-15T16:00:00.000Z');
    expect(iso(nextProbeAt('quota-exhausted', before, always(0.5)))).toBe('2026-06-15T16:02:30.000Z');
    const longBefore = Date.parse('2026-06-15T12:00:00Z');
    expect(iso(nextProbeAt('quota-exhausted', longBefore, always(0)))).toBe('2026-06-15T13:00:00.000Z');
  });

  test('of an exhausted quota never passes over a midnight in Beijing', () => {
    fc.assert(
      fc.property(times, luck, (now, share) => {
        const probeAt = nextProbeAt('quota-exhausted', now, always(share));
        expect(probeAt - nextMidnightInBeijing(now)).toBeLessThanOrEqual(5 * MINUTE);
      }),
    );
  });
});

describe('midnight in Beijing', () => {
  test.each([
    ['2026-06-15T15:59:59.999Z', '2026-06-15T16:00:00.000Z'],
    ['2026-06-15T16:00:00.000Z', '2026-06-16T16:00:00.000Z'],
    ['2026-12-31T23:00:00.000Z', '2027-01-01T16:00:00.000Z'],
    ['2028-02-29T10:00:00.000Z', '2028-02-29T16:00:00.000Z'],
  ])('after %s is %s', (now, midnight) => {
    expect(iso(nextMidnightInBeijing(Date.parse(now)))).toBe(midnight);
  });

  test('is the next instant that clocks there show 00:00', () => {
    const clock = new Intl.DateTimeFormat('en-GB', { timeZone: 'Asia/Shanghai', timeStyle: 'medium' });
    fc.assert(
      fc.property(times, (now) => {
        const midnight = nextMidnightInBeijing(now);
        expect(clock.format(midnight)).toBe('00:00:00');
        expect(midnight).toBeGreaterThan(now);
        expect(midnight - now).toBeLessThanOrEqual(DAY);
      }),
    );
  });
});
