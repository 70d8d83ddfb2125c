import { between, MINUTE, type Random, SECOND } from '../time.ts';

/** The first pause is at most this long; the bound doubles with each further try. */
const FIRST_CEILING_MS = 4 * SECOND;
const MAX_CEILING_MS = 30 * MINUTE;
/** No pause is shorter: full jitter may draw nothing at all. */
const FLOOR_MS = 0.5 * SECOND;
/** The last minutes: a try is made as they begin, early enough for a slow download, and more in quick succession. */
const LAST_MINUTES_MS = 2 * MINUTE;
/** Of a short life, as in tests, they are this part. */
const LAST_MINUTES_SHARE = 0.05;
/** In the last minutes a pause is a quarter to a half of what is left, so that some nine tries fit in. */
const LAST_PAUSE_SHARES = [1 / 4, 1 / 2] as const;
/** When no more than this part of the last minutes is left, no try would come in time; nor within a millisecond or two. */
const TOO_LATE_SHARE = 1 / 60;
const TOO_LATE_MS = 2;

/** Returns how long before the deadline the last minutes of a media begin. */
export function lastTryLead(mediaTtlMs: number): number {
  return Math.min(LAST_MINUTES_MS, mediaTtlMs * LAST_MINUTES_SHARE);
}

export interface RetryQuestion {
  readonly now: number;
  readonly deadline: number;
  /** Attempts that have failed so far, 1 at least. */
  readonly failedAttempts: number;
  /** @see lastTryLead */
  readonly leadMs: number;
  readonly random: Random;
}

/**
 * Returns when to try again, as a Unix time in milliseconds; `undefined` when the time has run out.
 *
 * The budget is time, not a count: full-jitter exponential backoff up to 30 minutes for as long as the media lives. A
 * failure before the last minutes is followed by a try as they begin, at the latest; a failure within them by another
 * one soon, until seconds before the deadline.
 *
 * @see https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
 */
export function nextTryAt({ now, deadline, failedAttempts, leadMs, random }: RetryQuestion): number | undefined {
  const leftMs = deadline - now;
  if (leftMs <= Math.max(TOO_LATE_MS, leadMs * TOO_LATE_SHARE)) return undefined;
  if (leftMs <= leadMs) {
    const [least, most] = LAST_PAUSE_SHARES;
    return now + Math.max(1, between(leftMs * least, leftMs * most, random));
  }
  const ceiling = Math.min(MAX_CEILING_MS, FIRST_CEILING_MS * 2 ** Math.min(failedAttempts - 1, 30));
  return Math.min(now + between(FLOOR_MS, Math.max(FLOOR_MS, ceiling), random), deadline - leadMs);
}
