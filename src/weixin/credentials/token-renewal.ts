import { between, DAY, HOUR, MINUTE, type Random, SECOND } from '../../time.ts';
import type { CountedCalls, TokenRecord } from './token-record.ts';
import { issuesAnew, type SharedTokenKind } from './token-subject.ts';

/** Renew this long before the end, drawn anew by each worker, so that they do not all ask in the same second. */
const RENEW_EARLIEST_MS = 2 * MINUTE;
const RENEW_LATEST_MS = MINUTE;
/** Of a short life, renew within its last part instead: at 300 s both rules say 60 to 120 s. */
const RENEW_EARLIEST_SHARE = 0.4;
const RENEW_LATEST_SHARE = 0.2;

/** Returns the Unix time in milliseconds from which this worker asks for the next token. Always before the end. */
export function renewAt(record: Pick<TokenRecord, 'confirmedAt' | 'expiresAt'>, random: Random): number {
  const life = record.expiresAt - record.confirmedAt;
  const earliest = Math.min(RENEW_EARLIEST_MS, life * RENEW_EARLIEST_SHARE);
  const latest = Math.min(RENEW_LATEST_MS, life * RENEW_LATEST_SHARE);
  return record.expiresAt - between(latest, earliest, random);
}

/** What to do about a token that WeChat has rejected although it is the current one. */
export type RejectionRemedy = 'none' | 'ask' | 'force';

/** After WeChat has given out again the very token that it rejects, it is not asked again for so long: rejections flap. */
const SAME_TOKEN_PAUSE_MS = 10 * SECOND;
/** Rejections further apart than this have nothing to do with each other. */
const REJECTIONS_COUNT_MS = 5 * MINUTE;
/** So many times must WeChat give out a token that it rejects before it is forced. */
const REJECTIONS_BEFORE_FORCE = 2;
/** WeChat allows 20 a day, 30 s apart; beyond that it ignores the wish. */
const FORCES_A_DAY = 20;
const FORCE_INTERVAL_MS = 30 * SECOND;

/** Each call of /cgi-bin/token issues a new token, of 2,000 a day, and so do those of platforms. So many an hour may be for rejections. */
const REISSUES_AN_HOUR = 30;
const REISSUE_INTERVAL_MS = 5 * SECOND;

/** Decides on a rejection of the current token. Bounded by itself: however many jobs fail, few calls are made. */
export function remedyFor(
  kind: SharedTokenKind,
  record: TokenRecord,
  calls: CountedCalls,
  now: number,
): RejectionRemedy {
  if (issuesAnew(kind))
    return mayGoOn(calls.replacedAt, REISSUES_AN_HOUR, HOUR, REISSUE_INTERVAL_MS, now) ? 'ask' : 'none';
  // The first rejection: most likely another system has refreshed it, and asking gives the new one.
  if (recentRejections(record, now) === 0) return 'ask';
  if (isNear(record.confirmedAt, SAME_TOKEN_PAUSE_MS, now)) return 'none';
  if (record.rejections < REJECTIONS_BEFORE_FORCE) return 'ask';
  return mayGoOn(calls.forcedAt, FORCES_A_DAY, DAY, FORCE_INTERVAL_MS, now) ? 'force' : 'ask';
}

/** How often of late WeChat has given out again the token that it rejects. */
export function recentRejections({ rejections, confirmedAt }: TokenRecord, now: number): number {
  return isNear(confirmedAt, REJECTIONS_COUNT_MS, now) ? rejections : 0;
}

/** A call that is about to be made, and is counted. */
export type CountedCall = 'forced' | 'replaced';

/** Returns the calls with this one; those that count no more are left out. */
export function withCall({ forcedAt, replacedAt }: CountedCalls, call: CountedCall, now: number): CountedCalls {
  return {
    forcedAt: [...near(forcedAt, DAY, now), ...(call === 'forced' ? [now] : [])],
    replacedAt: [...near(replacedAt, HOUR, now), ...(call === 'replaced' ? [now] : [])],
  };
}

function mayGoOn(times: readonly number[], most: number, periodMs: number, intervalMs: number, now: number): boolean {
  return near(times, periodMs, now).length < most && near(times, intervalMs, now).length === 0;
}

function near(times: readonly number[], withinMs: number, now: number): readonly number[] {
  return times.filter((time) => isNear(time, withinMs, now));
}

/**
 * True of a time that lies less than so far off, be it in the past or in the future: clocks of workers differ a little,
 * and a clock may have been set back, when the future must not count for ever.
 */
function isNear(time: number, withinMs: number, now: number): boolean {
  return Math.abs(now - time) < withinMs;
}
