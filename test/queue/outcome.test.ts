import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { FAILURES, type FailureCode, failure } from '../../src/failure.ts';
import { DEFAULT_MEDIA_TTL_MS } from '../../src/media/deadline.ts';
import { type FailedAttempt, outcomeOfFailure } from '../../src/queue/outcome.ts';
import { lastTryLead } from '../../src/queue/retry-schedule.ts';
import { HOUR, MINUTE, SECOND } from '../../src/time.ts';
import { always } from '../support/clock.ts';

const codes = Object.keys(FAILURES) as FailureCode[];
const anyCode = fc.constantFrom(...codes);
const NOON = Date.parse('2026-06-15T12:00:00Z');
const leadMs = lastTryLead(DEFAULT_MEDIA_TTL_MS);

/** The outcome of a first attempt, unless earlier ones are given, with so much of the media's life left. */
function outcome(
  code: FailureCode,
  { leftMs = 60 * HOUR, earlier = [] as readonly FailureCode[], share = 0.5 } = {},
): ReturnType<typeof outcomeOfFailure> {
  const attempts = [...earlier, code].map((failed) => ({ failure: failed }));
  return outcomeOfFailure({
    failure: failure(code, { detail: 'as it was' }),
    attempts,
    now: NOON,
    deadline: NOON + leftMs,
    leadMs,
    random: always(share),
  });
}

/** What the first failure of a young media leads to: the table says so, but for the one that is asked again. */
const expectedOutcome = (code: FailureCode): string => (code === 'invalid-media-id' ? 'retry' : FAILURES[code].action);

describe('a young media', () => {
  test.each(codes.map((code) => [code, expectedOutcome(code)]))('that fails with %s ends as %s', (code, expected) => {
    const ended = outcome(code as FailureCode);
    expect(ended.outcome).toBe(expected);
    expect(ended.failure).toEqual({ code, detail: 'as it was' });
    if (ended.outcome === 'dead' || ended.outcome === 'wait') expect(ended.reason).toBe(code);
    if (ended.outcome === 'retry') expect(ended.at).toBeGreaterThan(NOON);
  });
});

describe('with no time for another try, a media', () => {
  const lastTry = { leftMs: leadMs / 60 };

  test.each(codes.filter((code) => FAILURES[code].action !== 'dead'))(
    'that fails with %s has run out of time, and the cause is kept',
    (code) => {
      expect(outcome(code, lastTry)).toEqual({
        outcome: 'dead',
        reason: 'deadline-exceeded',
        failure: { code, detail: 'as it was' },
      });
    },
  );

  test.each(codes.filter((code) => FAILURES[code].action === 'dead' && code !== 'invalid-media-id'))(
    'that fails with %s is dead for that',
    (code) => {
      expect(outcome(code, lastTry)).toMatchObject({ outcome: 'dead', reason: code });
    },
  );
});

describe('a media that WeChat does not know', () => {
  test('is asked for once more, ten to twenty seconds later', () => {
    for (const share of [0, 0.5, 0.999]) {
      const ended = outcome('invalid-media-id', { share });
      const waitMs = ended.outcome === 'retry' ? ended.at - NOON : 0;
      expect(waitMs).toBeGreaterThanOrEqual(10 * SECOND);
      expect(waitMs).toBeLessThan(20 * SECOND);
    }
  });

  test('is dead when WeChat says so again', () => {
    expect(outcome('invalid-media-id', { earlier: ['invalid-media-id'] })).toMatchObject({
      outcome: 'dead',
      reason: 'invalid-media-id',
      failure: { code: 'invalid-media-id' },
    });
  });

  test('is asked for once more whatever else has failed before', () => {
    expect(outcome('invalid-media-id', { earlier: ['weixin-busy', 'quota-exhausted'] }).outcome).toBe('retry');
  });

  test.each([0, -1, -HOUR])('%i ms before its deadline has expired', (leftMs) => {
    expect(outcome('invalid-media-id', { leftMs })).toEqual({
      outcome: 'dead',
      reason: 'media-expired',
      failure: { code: 'media-expired', detail: 'as it was' },
    });
  });

  test('is asked again at its deadline at the latest, which tells expired from invalid', () => {
    const ended = outcome('invalid-media-id', { leftMs: 3 * SECOND });
    expect(ended).toMatchObject({ outcome: 'retry', at: NOON + 3 * SECOND });
  });
});

describe('waiting at a gate', () => {
  test('uses no place in the schedule up', () => {
    const gated = Array.from({ length: 50 }, (): FailureCode => 'quota-exhausted');
    const [fresh, waited] = [outcome('weixin-busy'), outcome('weixin-busy', { earlier: gated })];
    expect(waited).toEqual(fresh);
  });

  test('passing failures in between use theirs up', () => {
    const [first, third] = [
      outcome('weixin-busy'),
      outcome('weixin-busy', { earlier: ['weixin-timeout', 'rate-limited', 'store-busy'] }),
    ].map((ended) => (ended.outcome === 'retry' ? ended.at - NOON : 0));
    expect(first).toBeLessThan(4 * SECOND);
    expect(third).toBeGreaterThan(4 * SECOND);
  });
});

const histories = fc.record({
  code: anyCode,
  earlier: fc.array(anyCode, { maxLength: 30 }),
  leftMs: fc.integer({ min: -HOUR, max: 72 * HOUR }),
  share: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
});

test('no try is ever set past the deadline', () => {
  fc.assert(
    fc.property(histories, ({ code, ...history }) => {
      const ended = outcome(code, history);
      if (ended.outcome === 'retry') {
        expect(ended.at).toBeGreaterThan(NOON);
        expect(ended.at).toBeLessThanOrEqual(NOON + history.leftMs);
      }
    }),
  );
});

test('a media is given up early for a final cause alone', () => {
  fc.assert(
    fc.property(histories, ({ code, ...history }) => {
      const ended = outcome(code, history);
      if (ended.outcome !== 'dead') return;
      const isFinal = FAILURES[code].action === 'dead';
      expect(isFinal || history.leftMs <= leadMs / 60).toBe(true);
    }),
  );
});

test('a media is never tried without end: past its deadline every failure is the last', () => {
  fc.assert(
    fc.property(histories, ({ code, ...history }) => {
      expect(outcome(code, { ...history, leftMs: Math.min(0, history.leftMs) }).outcome).toBe('dead');
    }),
  );
});

test('the failure of a passing cause is spaced, never tried again at once', () => {
  const question: Omit<FailedAttempt, 'random'> = {
    failure: failure('unclassified'),
    attempts: [{ failure: 'unclassified' }],
    now: NOON,
    deadline: NOON + HOUR,
    leadMs: MINUTE,
  };
  const ended = outcomeOfFailure({ ...question, random: always(0) });
  expect(ended).toMatchObject({ outcome: 'retry', at: NOON + 0.5 * SECOND });
});
