import type { Failure } from '../../failure.ts';
import { between, MINUTE, type Random, SECOND } from '../../time.ts';
import type { SharedTokenKind } from './token-subject.ts';

/** A call that brought no token. It is remembered, by the fleet where the fleet shares the token, and not repeated at once. */
export interface FailedCall {
  /** Until this Unix time in milliseconds nobody asks again: whoever needs a token gets this failure. */
  readonly until: number;
  /** Failures in a row, this one included. */
  readonly count: number;
  readonly failure: Failure;
}

const FIRST_PAUSE_MS = 5 * SECOND;
/**
 * Shorter than the five minutes between two probes of what somebody must correct, so that a probe asks WeChat itself (one
 * after a minute may not), and no longer than the last two minutes of a media. Each call of /cgi-bin/token counts towards
 * 2,000 a day: at the longest pause it is asked some 960 times. stable_token is allowed 500,000; those of platforms are
 * limited by numbers that WeChat does not publish.
 */
const LONGEST_PAUSE_MS = {
  stable_token: 20 * SECOND,
  token: 2 * MINUTE,
  authorizer: MINUTE,
  component: 2 * MINUTE,
  // Of the operator's own, which may take what it is asked: it is back soon.
  external: 20 * SECOND,
} as const satisfies Record<SharedTokenKind | 'external', number>;
/** A pause that would last longer was written by a clock that has been set back since. */
const LONGEST_BELIEVED_MS = 4 * MINUTE;

/** What to remember of a failure that follows `before`: the pause doubles, and half of it is left to chance. */
export function failedCall(
  kind: keyof typeof LONGEST_PAUSE_MS,
  before: FailedCall | undefined,
  cause: Failure,
  now: number,
  random: Random,
): FailedCall {
  const count = (before?.count ?? 0) + 1;
  const ceiling = Math.min(LONGEST_PAUSE_MS[kind], FIRST_PAUSE_MS * 2 ** Math.min(count - 1, 30));
  return { until: now + between(ceiling / 2, ceiling, random), count, failure: cause };
}

/** The failure that stands in place of a call; `undefined` when WeChat may be asked. Reading it prolongs nothing. */
export function rememberedFailure(failed: FailedCall | undefined, now: number): Failure | undefined {
  if (failed === undefined) return undefined;
  const leftMs = failed.until - now;
  return leftMs > 0 && leftMs <= LONGEST_BELIEVED_MS ? failed.failure : undefined;
}
