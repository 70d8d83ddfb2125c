import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Secret } from '../../../src/secret.ts';
import { DAY, HOUR, MINUTE, SECOND } from '../../../src/time.ts';
import type { CountedCalls, TokenRecord } from '../../../src/weixin/credentials/token-record.ts';
import { remedyFor, renewAt, withCall } from '../../../src/weixin/credentials/token-renewal.ts';

const NOW = Date.parse('2026-06-15T12:00:00Z');

function record(fields: Partial<TokenRecord> = {}): TokenRecord {
  return {
    token: new Secret('t'),
    generation: 'g',
    obtainedAt: NOW,
    confirmedAt: NOW,
    expiresAt: NOW + 2 * HOUR,
    rejections: 0,
    ...fields,
  };
}

const NONE: CountedCalls = { forcedAt: [], replacedAt: [] };

function forced(...forcedAt: number[]): CountedCalls {
  return { forcedAt, replacedAt: [] };
}

describe('early renewal', () => {
  test('comes before the end and not before now, whatever the life', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: SECOND, max: DAY }),
        fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
        (life, chance) => {
          const at = renewAt({ confirmedAt: NOW, expiresAt: NOW + life }, () => chance);
          expect(at).toBeLessThan(NOW + life);
          expect(at).toBeGreaterThan(NOW);
        },
      ),
    );
  });

  test.each([
    [7_200 * SECOND, MINUTE, 2 * MINUTE],
    [300 * SECOND, MINUTE, 2 * MINUTE],
    [100 * SECOND, 20 * SECOND, 40 * SECOND],
  ])('of a life of %i ms comes %i to %i ms before the end', (life, latest, earliest) => {
    const early = renewAt({ confirmedAt: NOW, expiresAt: NOW + life }, () => 0.999_999);
    const late = renewAt({ confirmedAt: NOW, expiresAt: NOW + life }, () => 0);
    expect(NOW + life - late).toBe(latest);
    expect(NOW + life - early).toBeCloseTo(earliest, -2);
  });
});

describe('a rejected stable_token', () => {
  test('is asked for at once the first time', () => {
    expect(remedyFor('stable_token', record(), NONE, NOW)).toBe('ask');
  });

  test('is not asked for again within ten seconds of getting the same', () => {
    expect(remedyFor('stable_token', record({ rejections: 1 }), NONE, NOW + 9 * SECOND)).toBe('none');
    expect(remedyFor('stable_token', record({ rejections: 1 }), NONE, NOW + 10 * SECOND)).toBe('ask');
  });

  test('is forced once WeChat has given it out twice although it rejects it', () => {
    expect(remedyFor('stable_token', record({ rejections: 2 }), NONE, NOW + 10 * SECOND)).toBe('force');
  });

  test('is not forced twice within 30 s, nor more than 20 times a day', () => {
    const at = NOW + 10 * SECOND;
    const twice = record({ rejections: 2 });
    expect(remedyFor('stable_token', twice, forced(at - 29 * SECOND), at)).toBe('ask');
    expect(remedyFor('stable_token', twice, forced(at - 30 * SECOND), at)).toBe('force');
    const twenty = forced(...Array.from({ length: 20 }, (_, index) => at - (20 - index) * HOUR));
    expect(remedyFor('stable_token', twice, twenty, at)).toBe('ask');
    const later = at + 4 * HOUR + SECOND;
    const again = record({ rejections: 2, confirmedAt: later - 10 * SECOND });
    expect(remedyFor('stable_token', again, twenty, later)).toBe('force');
  });

  test('is asked for, not forced, when the rejections before lie long back: a good token flaps', () => {
    expect(remedyFor('stable_token', record({ rejections: 2 }), NONE, NOW + 5 * MINUTE)).toBe('ask');
  });
});

describe('a clock that was set back', () => {
  const ahead = NOW + 2 * DAY;

  test('leaves no token that is never asked for again', () => {
    expect(remedyFor('stable_token', record({ rejections: 1, confirmedAt: ahead }), NONE, NOW)).toBe('ask');
    const replaced = { forcedAt: [], replacedAt: Array.from({ length: 30 }, () => ahead) };
    expect(remedyFor('token', record(), replaced, NOW)).toBe('ask');
  });

  test('leaves no token that is never forced again', () => {
    const twice = record({ rejections: 2, confirmedAt: NOW - MINUTE });
    expect(remedyFor('stable_token', twice, forced(...Array.from({ length: 20 }, () => ahead)), NOW)).toBe('force');
  });

  test('by less than a day does not raise the number that is allowed in a day', () => {
    const twice = record({ rejections: 2, confirmedAt: NOW - MINUTE });
    const soon = forced(...Array.from({ length: 20 }, (_, index) => NOW + (index + 1) * MINUTE));
    expect(remedyFor('stable_token', twice, soon, NOW)).toBe('ask');
  });

  test('by seconds, as clocks of two workers differ, does not shorten the pause', () => {
    const twice = record({ rejections: 2, confirmedAt: NOW - MINUTE });
    expect(remedyFor('stable_token', twice, forced(NOW + 5 * SECOND), NOW)).toBe('ask');
  });
});

test('what can not be read as a time counts for nothing', () => {
  const twice = record({ rejections: 2, confirmedAt: NOW - MINUTE });
  expect(remedyFor('stable_token', twice, forced(Number.NaN), NOW)).toBe('force');
});

test('of the calls only those are kept that count', () => {
  const calls = { forcedAt: [NOW - DAY, NOW - HOUR], replacedAt: [NOW - HOUR, NOW - MINUTE] };
  expect(withCall(calls, 'forced', NOW)).toEqual({ forcedAt: [NOW - HOUR, NOW], replacedAt: [NOW - MINUTE] });
  expect(withCall(calls, 'replaced', NOW)).toEqual({ forcedAt: [NOW - HOUR], replacedAt: [NOW - MINUTE, NOW] });
});

/** Lives through a day in which every token is rejected, every 100 ms. Counts what is asked of WeChat. */
function asksInADay(type: 'stable_token' | 'token', answered: (remedy: 'ask' | 'force') => boolean = () => true) {
  let current = record();
  let calls = NONE;
  let asks = 0;
  let forces = 0;
  for (let now = NOW; now < NOW + DAY; now += 100) {
    const remedy = remedyFor(type, current, calls, now);
    if (remedy === 'none') continue;
    asks += 1;
    if (remedy === 'force') forces += 1;
    if (type === 'token') calls = withCall(calls, 'replaced', now);
    else if (remedy === 'force') calls = withCall(calls, 'forced', now);
    if (!answered(remedy)) continue;
    const same = type === 'stable_token' && remedy === 'ask';
    current = { ...current, confirmedAt: now, rejections: same ? current.rejections + 1 : 0 };
  }
  return { asks, forces };
}

test('however often it is rejected, a stable_token is forced 20 times a day at most', () => {
  const { asks, forces } = asksInADay('stable_token');
  expect(forces).toBe(20);
  expect(asks).toBeLessThanOrEqual(DAY / (10 * SECOND) + 60);
});

test('however often it is rejected, a token is issued far less often than the 2,000 times a day that are allowed', () => {
  expect(asksInADay('token').asks).toBe(30 * 24);
});

test('calls whose answers are lost count as the others do', () => {
  expect(asksInADay('token', () => false).asks).toBe(30 * 24);
  expect(asksInADay('stable_token', (remedy) => remedy === 'ask').forces).toBe(20);
});
