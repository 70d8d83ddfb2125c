import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { failure } from '../../../src/failure.ts';
import { GATE_RULES, type GateReason } from '../../../src/queue/gate-rules.ts';
import { DAY, MINUTE, SECOND } from '../../../src/time.ts';
import { type FailedCall, failedCall, rememberedFailure } from '../../../src/weixin/credentials/failed-call.ts';
import { always } from '../../support/clock.ts';

const NOW = Date.parse('2026-06-15T12:00:00Z');
const BUSY = failure('weixin-busy', { errcode: -1 });
const TYPES = ['stable_token', 'token'] as const;

/** The pauses after so many failures in a row. */
function pauses(type: (typeof TYPES)[number], failures: number, share: number): number[] {
  const seen: number[] = [];
  let failed: FailedCall | undefined;
  for (let count = 0; count < failures; count += 1) {
    failed = failedCall(type, failed, BUSY, NOW, always(share));
    seen.push(failed.until - NOW);
  }
  return seen;
}

describe('the pause after a failed call', () => {
  test('doubles from 5 to 20 seconds, for /cgi-bin/token to two minutes', () => {
    expect(pauses('stable_token', 5, 1)).toEqual([5, 10, 20, 20, 20].map((seconds) => seconds * SECOND));
    expect(pauses('token', 7, 1)).toEqual([5, 10, 20, 40, 80, 120, 120].map((seconds) => seconds * SECOND));
  });

  test('is left to chance by half', () => {
    expect(pauses('token', 6, 0)).toEqual([2.5, 5, 10, 20, 40, 60].map((seconds) => seconds * SECOND));
  });

  test.each(TYPES)('of a %s is over before the gate that somebody must open by hand is probed', (type) => {
    const reasons: GateReason[] = ['app-secret-invalid', 'ip-not-allowed', 'ip-confirmation-pending', 'app-id-invalid'];
    const soonest = Math.min(...reasons.map((reason) => GATE_RULES[reason].probeAfterMs));
    expect(Math.max(...pauses(type, 2_000, 0.999_999))).toBeLessThan(soonest);
  });

  test('keeps the calls of /cgi-bin/token in a day under the 2,000 that are allowed, however unlucky', () => {
    const all = pauses('token', 2_000, 0);
    expect(all.reduce((sum, pause) => sum + pause, 0)).toBeGreaterThan(DAY);
  });
});

describe('a remembered failure', () => {
  const failed = { until: NOW + 10 * SECOND, count: 2, failure: BUSY };

  test('stands until its pause is over', () => {
    expect(rememberedFailure(failed, NOW)).toMatchObject(BUSY);
    expect(rememberedFailure(failed, NOW + 10 * SECOND - 1)).toMatchObject(BUSY);
    expect(rememberedFailure(failed, NOW + 10 * SECOND)).toBeUndefined();
    expect(rememberedFailure(failed, NOW)).toBe(failed.failure);
    expect(rememberedFailure(undefined, NOW)).toBeUndefined();
  });

  test('of a clock that was ahead does not stand for longer than minutes', () => {
    fc.assert(
      fc.property(fc.integer({ min: -DAY, max: 365 * DAY }), fc.constantFrom(...TYPES), (ahead, type) => {
        const { until } = failedCall(type, undefined, BUSY, NOW + ahead, always(0.5));
        const standsFor = rememberedFailure({ ...failed, until }, NOW) === undefined ? 0 : until - NOW;
        expect(standsFor).toBeLessThanOrEqual(4 * MINUTE);
      }),
    );
  });

  test('of a clock that is some seconds ahead, as those of two workers may be, stands', () => {
    for (const type of TYPES) {
      const long = { until: 0, count: 10, failure: BUSY };
      const theirs = failedCall(type, long, BUSY, NOW + 5 * SECOND, always(0.999));
      expect(rememberedFailure(theirs, NOW)).toMatchObject(BUSY);
    }
  });
});
