import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { DEFAULT_MEDIA_TTL_MS } from '../../src/media/deadline.ts';
import { lastTryLead, nextTryAt, type RetryQuestion } from '../../src/queue/retry-schedule.ts';
import { DAY, HOUR, MINUTE, SECOND } from '../../src/time.ts';
import { always } from '../support/clock.ts';
import { seededRandom } from './seeded-random.ts';

const LEAD_MS = lastTryLead(DEFAULT_MEDIA_TTL_MS);
const NOON = Date.parse('2026-06-15T12:00:00Z');
const luck = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });

const questions: fc.Arbitrary<RetryQuestion> = fc
  .record({
    now: fc.integer({ min: NOON, max: NOON + 10 * DAY }),
    leftMs: fc.integer({ min: -DAY, max: 7 * DAY }),
    failedAttempts: fc.oneof(fc.integer({ min: 1, max: 12 }), fc.integer({ min: 1, max: 1e9 })),
    ttlMs: fc.integer({ min: SECOND, max: 7 * DAY }),
    luck,
  })
  .map((drawn) => ({
    now: drawn.now,
    deadline: drawn.now + drawn.leftMs,
    failedAttempts: drawn.failedAttempts,
    leadMs: lastTryLead(drawn.ttlMs),
    random: always(drawn.luck),
  }));

/** Fails and fails again, from `start` to the end. Returns the times of the tries, the first included. */
function tries(ttlMs: number, draw: () => number, attemptMs = 0): number[] {
  const times = [0];
  let now = 0;
  for (;;) {
    const failedAttempts = times.length;
    now += attemptMs;
    const at = nextTryAt({ now, deadline: ttlMs, failedAttempts, leadMs: lastTryLead(ttlMs), random: draw });
    if (at === undefined) return times;
    times.push(at);
    now = at;
  }
}

/** What is left when no more try is made. */
const tooLateMs = (leadMs: number): number => Math.max(2, leadMs / 60);

describe('the next try', () => {
  test('is before the deadline, and as the last minutes begin at the latest', () => {
    fc.assert(
      fc.property(questions, (question) => {
        const at = nextTryAt(question);
        if (at === undefined) return;
        expect(at).toBeLessThan(question.deadline);
        const lastMinutesAt = question.deadline - question.leadMs;
        if (question.now < lastMinutesAt) expect(at).toBeLessThanOrEqual(lastMinutesAt);
      }),
    );
  });

  test('is always made until the deadline is seconds away, and never after', () => {
    fc.assert(
      fc.property(questions, (question) => {
        const isOver = question.deadline - question.now <= tooLateMs(question.leadMs);
        expect(nextTryAt(question) === undefined).toBe(isOver);
      }),
    );
  });

  test('lies in the future', () => {
    fc.assert(
      fc.property(questions, (question) => {
        const at = nextTryAt(question);
        if (at !== undefined) expect(at).toBeGreaterThan(question.now);
      }),
    );
  });

  test('is half a second away at least, unless the last minutes are nearer, and half an hour at most', () => {
    fc.assert(
      fc.property(questions, (question) => {
        const at = nextTryAt(question);
        const lastMinutesAt = question.deadline - question.leadMs;
        if (at === undefined || question.now >= lastMinutesAt) return;
        expect(at - question.now).toBeGreaterThanOrEqual(Math.min(0.5 * SECOND, lastMinutesAt - question.now) - 1);
        expect(at - question.now).toBeLessThanOrEqual(30 * MINUTE);
      }),
    );
  });
});

describe('the bound of the pause', () => {
  const longest = (failedAttempts: number): number =>
    (nextTryAt({ now: 0, deadline: 3 * DAY, failedAttempts, leadMs: LEAD_MS, random: always(0.999_999_9) }) ?? 0) /
    SECOND;

  test('doubles with each failure, from four seconds to half an hour', () => {
    const bounds = Array.from({ length: 12 }, (_, index) => Math.round(longest(index + 1)));
    expect(bounds).toEqual([4, 8, 16, 32, 64, 128, 256, 512, 1_024, 1_800, 1_800, 1_800]);
  });

  test('never shrinks, however many failures', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 1e9 }), fc.nat(1e6), (failedAttempts, more) => {
        expect(longest(failedAttempts + more)).toBeGreaterThanOrEqual(longest(failedAttempts));
      }),
    );
  });

  test('is drawn from in full, so that jobs that failed together come back apart', () => {
    const draw = (share: number): number =>
      nextTryAt({ now: 0, deadline: 3 * DAY, failedAttempts: 10, leadMs: LEAD_MS, random: always(share) }) ?? 0;
    expect(draw(0)).toBe(0.5 * SECOND);
    expect(draw(0.5)).toBeGreaterThan(14 * MINUTE);
    expect(draw(0.5)).toBeLessThan(16 * MINUTE);
  });
});

describe('an outage as long as the life of a media', () => {
  test('is tried as its last two minutes begin, whatever the luck and however long an attempt takes', () => {
    fc.assert(
      fc.property(fc.integer(), fc.integer({ min: 0, max: 2 * MINUTE }), (seed, attemptMs) => {
        const times = tries(DEFAULT_MEDIA_TTL_MS, seededRandom(seed), attemptMs);
        const first = times.find((at) => at >= DEFAULT_MEDIA_TTL_MS - 2 * MINUTE - attemptMs);
        expect(first).toBeLessThanOrEqual(DEFAULT_MEDIA_TTL_MS - 2 * MINUTE);
      }),
    );
  });

  test('is tried to its last ten seconds where attempts are quick, with some more calls', () => {
    fc.assert(
      fc.property(fc.integer(), (seed) => {
        const times = tries(DEFAULT_MEDIA_TTL_MS, seededRandom(seed));
        expect(DEFAULT_MEDIA_TTL_MS - (times.at(-1) ?? 0)).toBeLessThanOrEqual(10 * SECOND);
        const inLastMinutes = times.filter((at) => at >= DEFAULT_MEDIA_TTL_MS - 2 * MINUTE);
        expect(inLastMinutes.length).toBeGreaterThanOrEqual(6);
        expect(inLastMinutes.length).toBeLessThanOrEqual(16);
      }),
    );
  });

  test('leaves no hour untried', () => {
    fc.assert(
      fc.property(fc.integer(), (seed) => {
        const times = tries(DEFAULT_MEDIA_TTL_MS, seededRandom(seed));
        const gaps = times.slice(1).map((at, index) => at - (times[index] ?? 0));
        expect(Math.max(...gaps)).toBeLessThanOrEqual(30 * MINUTE);
      }),
    );
  });

  test('costs few attempts at most, even when every draw is the shortest', () => {
    expect(tries(10 * MINUTE, always(0)).length).toBeLessThanOrEqual((10 * MINUTE) / (0.5 * SECOND));
  });
});

describe('the last minutes', () => {
  test.each([
    ['three days', 72 * HOUR, 2 * MINUTE],
    ['an hour', HOUR, 2 * MINUTE],
    ['forty minutes', 40 * MINUTE, 2 * MINUTE],
    ['ten minutes', 10 * MINUTE, 30 * SECOND],
    ['ten seconds', 10 * SECOND, 0.5 * SECOND],
  ])('of a life of %s begin this long before its end, with a try', (_name, ttlMs, leadMs) => {
    expect(lastTryLead(ttlMs)).toBe(leadMs);
    expect(tries(ttlMs, always(0.999))).toContain(ttlMs - leadMs);
  });

  test('follow a failure a millisecond before them with a try at once, one in them with a try soon', () => {
    const question = { deadline: 3 * DAY, failedAttempts: 300, leadMs: LEAD_MS, random: always(0.5) };
    const lastMinutesAt = 3 * DAY - LEAD_MS;
    expect(nextTryAt({ ...question, now: lastMinutesAt - 1 })).toBe(lastMinutesAt);
    expect(nextTryAt({ ...question, now: lastMinutesAt })).toBe(lastMinutesAt + (3 / 8) * LEAD_MS);
    expect(nextTryAt({ ...question, now: 3 * DAY - 20 * SECOND })).toBe(3 * DAY - 12.5 * SECOND);
    expect(nextTryAt({ ...question, now: 3 * DAY - 2 * SECOND })).toBeUndefined();
  });
});
