import { between, MINUTE, type Random, SECOND } from '../time.ts';

/** The first pause is at most this long; the bound doubles with each further try. */
const FIRST_CEILING_MS = 4 * SECOND;
const MAX_CEILING_MS = 30 * MINUTE;
/** No pause is shorter: full jitter may draw nothing at all. */
const FLOOR_MS = 0.5 * SECOND;
/** The last try is made this long before the deadline: enough for a slow download, late enough for a long outage. */
const LAST_TRY_LEAD_MS = 2 * MINUTE;
/** Of a short life, as in tests, the lead is this part. */
const LAST_TRY_LEAD_SHARE = 0.05;

/** Returns how long before the deadline the last try is made. */
export function lastTryLead(mediaTtlMs: number): number {
  return Math.min(LAST_TRY_LEAD_MS, mediaTtlMs * LAST_TRY_LEAD_SHARE);
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
 * failure before the last try's time is always followed by another try, at that time at the latest; a failure at it or
 * later is the end.
 *
 * @see https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
 */
export function nextTryAt({ now, deadline, failedAttempts, leadMs, random }: RetryQuestion): number | undefined {
  const lastTryAt = deadline - leadMs;
  if (now >= lastTryAt) return undefined;
  const ceiling = Math.min(MAX_CEILING_MS, FIRST_CEILING_MS * 2 ** Math.min(failedAttempts - 1, 30));
  return Math.min(now + between(FLOOR_MS, Math.max(FLOOR_MS, ceiling), random), lastTryAt);
}
