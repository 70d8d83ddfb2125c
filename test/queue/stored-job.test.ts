import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type AttemptRecord, attemptRecord } from '../../src/archive/attempt-record.ts';
import { FAILURES, type FailureCode, failure } from '../../src/failure.ts';
import { type Ledger, MAX_ATTEMPTS, parseStoredJob, storedJobData, withAttempt } from '../../src/queue/stored-job.ts';
import { iso } from '../../src/time.ts';
import { testJob } from '../support/jobs.ts';

const NOON = Date.parse('2026-06-15T12:00:00Z');

const codes = Object.keys(FAILURES) as FailureCode[];
const days = fc.date({ min: new Date('2026-01-01'), max: new Date('2036-01-01'), noInvalidDate: true });
const texts = fc.string({ unit: 'grapheme' });
const maybe = <T>(value: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> => fc.option(value, { nil: undefined });

const records: fc.Arbitrary<AttemptRecord> = fc
  .record({
    startedAt: fc.integer({ min: 1.7e12, max: 2.4e12 }),
    durationMs: fc.nat(1e7),
    code: fc.constantFrom(...codes),
    errcode: maybe(fc.integer()),
    errmsg: maybe(texts),
    // Never empty: it is taken from the errmsg by its form.
    rid: maybe(fc.string({ unit: 'grapheme', minLength: 1 })),
    httpStatus: maybe(fc.nat(599)),
    detail: maybe(texts),
  })
  .map(({ startedAt, durationMs, code, ...facts }) =>
    attemptRecord(startedAt, startedAt + durationMs, failure(code, facts)),
  );

const ledgers: fc.Arbitrary<Ledger> = fc
  .record({
    attempts: fc.array(records, { maxLength: 10 }),
    verdict: maybe(fc.record({ reason: fc.constantFrom(...codes), diedAt: days.map((day) => day.toISOString()) })),
    replayed: maybe(fc.boolean()),
  })
  .map(({ attempts, verdict, replayed }) => ({
    attempts,
    ...(verdict === undefined ? {} : { verdict }),
    ...(replayed === undefined ? {} : { replayed }),
  }));

function record(number: number): AttemptRecord {
  return { at: new Date(number * 60_000).toISOString(), durationMs: number, failure: 'weixin-busy' };
}

function ledgerAfter(count: number): Ledger {
  let ledger: Ledger = { attempts: [] };
  for (let number = 0; number < count; number += 1) ledger = withAttempt(ledger, record(number));
  return ledger;
}

test('a job comes back from Redis as it was written', () => {
  fc.assert(
    fc.property(ledgers, (ledger) => {
      const stored = { job: testJob({ labels: { shop: '7' }, source: { messageId: '1' } }), ledger };
      expect(parseStoredJob(JSON.stringify(storedJobData(stored)))).toEqual({ ok: true, stored });
    }),
  );
});

test('a job that no worker has touched yet has an empty history', () => {
  const job = testJob();
  expect(parseStoredJob(JSON.stringify(job))).toEqual({ ok: true, stored: { job, ledger: { attempts: [] } } });
});

describe('what is no job', () => {
  test.each([
    ['nothing', '', /^job: is not JSON$/],
    ['half a document', '{"v":1,', /^job: is not JSON$/],
    ['null', 'null', /^job: /],
    ['a list', '[]', /^job: /],
    ['another job', '{"to":"somebody"}', /^v: /],
    [
      'a job with a field too many',
      JSON.stringify({ ...testJob(), priority: 1 }),
      /^job: Unrecognized key: "priority"$/,
    ],
    [
      'a history that speaks of what is not there',
      JSON.stringify({ ...testJob(), ledger: { attempts: { kinds: [], log: [[0, 0, 0]] } } }),
      /^ledger\.attempts: /,
    ],
    ['a history of another kind', JSON.stringify({ ...testJob(), ledger: 7 }), /^ledger: /],
    [
      'a verdict that nobody knows',
      JSON.stringify({ ...testJob(), ledger: { attempts: [], verdict: { reason: 'boredom', diedAt: '' } } }),
      /^ledger\.verdict\.reason: /,
    ],
    [
      'a verdict of no time',
      JSON.stringify({ ...testJob(), ledger: { attempts: [], verdict: { reason: 'media-expired', diedAt: 'noon' } } }),
      /^ledger\.verdict\.diedAt: /,
    ],
    [
      'a verdict by a word of JavaScript',
      JSON.stringify({ ...testJob(), ledger: { verdict: { reason: 'constructor', diedAt: '' } } }),
      /^ledger\.verdict\.reason: /,
    ],
  ])('%s is told by its first mistake', (_name, data, mistake) => {
    const parsed = parseStoredJob(data);
    expect(parsed.ok).toBe(false);
    if (!parsed.ok) expect(parsed.mistakes[0]).toMatch(mistake);
  });

  test('is never an exception, whatever lies there', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string({ unit: 'binary' }), fc.json()), (data) => {
        const parsed = parseStoredJob(data);
        if (!parsed.ok) expect(parsed.mistakes.length).toBeGreaterThan(0);
      }),
    );
  });
});

describe('a history that somebody else has written', () => {
  const parsed = (ledger: object): Ledger => {
    const result = parseStoredJob(JSON.stringify({ ...testJob(), ledger }));
    if (!result.ok) throw new Error(result.mistakes.join());
    return result.stored.ledger;
  };

  test('is as long as one of ours at most', () => {
    const attempts = Array.from({ length: 5_000 }, (_, number) => record(number));
    expect(parsed({ attempts }).attempts).toEqual(ledgerAfter(5_000).attempts);
  });

  test('keeps of its texts no more than any of ours has', () => {
    const text = 'x'.repeat(1_000_000);
    const attempts = [{ ...record(1), errmsg: text, detail: text, rid: text, at: text }];
    const verdict = { reason: 'media-expired', diedAt: '2026-06-15T12:00:00Z', detail: text };
    expect(JSON.stringify(parsed({ attempts, verdict })).length).toBeLessThan(6_000);
  });
});

describe('a long history', () => {
  test('of three days, by whatever schedule, is kept whole', () => {
    expect(ledgerAfter(MAX_ATTEMPTS)).toEqual({
      attempts: Array.from({ length: MAX_ATTEMPTS }, (_, number) => record(number)),
    });
  });

  test.each([1, 2, 500])('that goes on for %i attempts more keeps its beginning and its end, and says so', (more) => {
    const { attempts, attemptsOmitted } = ledgerAfter(MAX_ATTEMPTS + more);
    const numbers = attempts.map(({ durationMs }) => durationMs);
    const first = Array.from({ length: 100 }, (_, number) => number);
    const last = Array.from({ length: MAX_ATTEMPTS - 100 }, (_, number) => 100 + more + number);
    expect(numbers).toEqual([...first, ...last]);
    expect(attemptsOmitted).toBe(more);
  });

  test('of attempts that failed alike is small, though each has its own time, rid and hint', () => {
    const attempts = Array.from({ length: 300 }, (_, number): AttemptRecord => {
      const rid = `66bd62${(number + 16).toString(16)}-234f6532-5f2526${(number + 16).toString(16)}`;
      const errmsg = `system error hint: [Ab.${number}] rid: ${rid}`;
      return { at: iso(NOON + number * 900_123), durationMs: 1_234, failure: 'weixin-busy', errcode: -1, errmsg, rid };
    });
    const stored = { job: testJob(), ledger: { attempts } };
    const packed = JSON.stringify(storedJobData(stored));
    expect(parseStoredJob(packed)).toEqual({ ok: true, stored });
    expect(packed.length).toBeLessThan(JSON.stringify(attempts).length / 2.5);
  });

  test('adds to nothing but the attempts', () => {
    const verdict = { reason: 'media-expired' as const, diedAt: '2026-06-15T12:00:00Z' };
    const before: Ledger = { attempts: [record(1)], verdict, replayed: true };
    expect(withAttempt(before, record(2))).toEqual({ ...before, attempts: [record(1), record(2)] });
    expect(before.attempts).toEqual([record(1)]);
  });
});
