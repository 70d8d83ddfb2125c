import type { AttemptRecord } from '../archive/attempt-record.ts';
import { FAILURES, type Failure, type FailureCode } from '../failure.ts';
import { between, type Random, SECOND } from '../time.ts';
import { type GateReason, isGateReason } from './gate-rules.ts';
import { nextTryAt } from './retry-schedule.ts';

/**
 * How an attempt ends, in the words that logs, metrics, dead letters and commands share.
 *
 * `archived` and `dead` are final. `retry` costs a place in the schedule; `wait` closes the app's gate and costs
 * nothing.
 */
export type Outcome =
  | { readonly outcome: 'archived' }
  | { readonly outcome: 'retry'; readonly failure: Failure; readonly at: number }
  | { readonly outcome: 'wait'; readonly failure: Failure; readonly reason: GateReason; readonly at: number }
  | { readonly outcome: 'dead'; readonly failure: Failure; readonly reason: FailureCode };

/**
 * Nobody knows whether 40007 can come too early, right after the push. So a media_id that WeChat does not know is asked
 * for once more, this much later, before it is given up.
 */
const CONFIRM_AFTER_MS = [10 * SECOND, 20 * SECOND] as const;

export interface FailedAttempt {
  readonly failure: Failure;
  /** All failed attempts, this one included. */
  readonly attempts: readonly Pick<AttemptRecord, 'failure'>[];
  readonly now: number;
  readonly deadline: number;
  readonly leadMs: number;
  readonly random: Random;
}

/** Decides what becomes of a job whose attempt has failed. The one place where "the last attempt" is known. */
export function outcomeOfFailure(attempt: FailedAttempt): Exclude<Outcome, { outcome: 'archived' }> {
  const { failure: cause, now, deadline, leadMs, random, attempts } = attempt;
  if (cause.code === 'invalid-media-id') return outcomeOfUnknownMedia(attempt);
  if (FAILURES[cause.code].action === 'dead') return { outcome: 'dead', failure: cause, reason: cause.code };

  const failedAttempts = attempts.filter(({ failure: code }) => !isGateReason(code)).length;
  const at = nextTryAt({ now, deadline, failedAttempts: Math.max(1, failedAttempts), leadMs, random });
  if (at === undefined) return { outcome: 'dead', failure: cause, reason: 'deadline-exceeded' };
  if (!isGateReason(cause.code)) return { outcome: 'retry', failure: cause, at };
  // Its lane is not served while the gate is closed, so it can wait at the head of it; but in its last minutes it is.
  const isServed = now >= deadline - leadMs;
  return { outcome: 'wait', failure: cause, reason: cause.code, at: isServed ? at : now };
}

/** 40007 is also what WeChat says of a media that has expired. */
function outcomeOfUnknownMedia({
  failure: cause,
  attempts,
  now,
  deadline,
  random,
}: FailedAttempt): Exclude<Outcome, { outcome: 'archived' }> {
  if (now >= deadline)
    return { outcome: 'dead', failure: { ...cause, code: 'media-expired' }, reason: 'media-expired' };
  const confirmed = attempts.filter(({ failure: code }) => code === 'invalid-media-id').length > 1;
  if (confirmed) return { outcome: 'dead', failure: cause, reason: 'invalid-media-id' };
  return { outcome: 'retry', failure: cause, at: Math.min(now + between(...CONFIRM_AFTER_MS, random), deadline) };
}
