import { z } from 'zod';
import { attemptRecordSchema } from '../archive/attempt-record.ts';
import { FAILURES, type FailureCode } from '../failure.ts';

/**
 * The record of a media that was given up. Version 1 of the contract; one JSON document in the bucket, rewritten as its
 * story goes on.
 *
 * - `open`: given up; nobody has looked at it.
 * - `replayed`: put back to work.
 * - `resolved`: a replay has archived it; `archivedKey` says where.
 * - `discarded`: an operator has decided that it needs no more.
 */
export const deadLetterSchema = z.object({
  v: z.literal(1),
  appId: z.string(),
  mediaId: z.string(),
  /** The payload: a MediaJob v1, or what stood in its place (`job-invalid`). */
  job: z.unknown(),
  reason: z.string().refine((code): code is FailureCode => Object.hasOwn(FAILURES, code)),
  errcode: z.number().optional(),
  errmsg: z.string().optional(),
  rid: z.string().optional(),
  /** A sentence beside the codes: the last cause, a size, the mistakes of an invalid job. */
  detail: z.string().optional(),
  firstAttemptAt: z.string().nullable(),
  diedAt: z.string(),
  deadline: z.string().nullable(),
  attempts: z.array(attemptRecordSchema),
  /** How many attempts in the middle of a history beyond all measure are not kept. */
  attemptsOmitted: z.number().optional(),
  status: z.enum(['open', 'replayed', 'resolved', 'discarded']),
  replays: z.array(z.object({ at: z.string(), by: z.string(), reason: z.string() })),
  discarded: z.object({ at: z.string(), by: z.string(), reason: z.string() }).optional(),
  archivedKey: z.string().optional(),
});

export type DeadLetter = z.output<typeof deadLetterSchema>;

/** Who did something to a dead letter, and why. */
export interface OperatorNote {
  readonly by: string;
  readonly reason: string;
}

/** What the index holds of a dead letter, enough to list and filter without the bucket. */
export const deadLetterSummarySchema = z.object({
  jobId: z.string(),
  /** Where the whole letter lies in the bucket. */
  key: z.string(),
  appId: z.string(),
  mediaId: z.string(),
  reason: z.string(),
  errcode: z.number().optional(),
  diedAt: z.string(),
  deadline: z.string().nullable(),
  attempts: z.number(),
});

export type DeadLetterSummary = z.output<typeof deadLetterSummarySchema>;

/**
 * The identity of the letter of what is no MediaJob, whatever id it had in the queue: it must not stand in the way of the
 * media that the same id names, once the producer is corrected.
 */
export function invalidJobId(queueId: string): string {
  return `invalid:${queueId}`;
}

export function summaryOf(jobId: string, key: string, letter: DeadLetter): DeadLetterSummary {
  const { appId, mediaId, reason, errcode, diedAt, deadline, attempts } = letter;
  return {
    jobId,
    key,
    appId,
    mediaId,
    reason,
    diedAt,
    deadline,
    attempts: attempts.length,
    ...(errcode === undefined ? {} : { errcode }),
  };
}
