import { z } from 'zod';
import { FAILURES, type Failure, type FailureCode } from '../failure.ts';
import { iso } from '../time.ts';

/** Longer than any text we write; what somebody else has written is cut, or a dead letter of it would know no bounds. */
const MAX_TEXT = 500;

export const recordedText = z.string().transform((text) => text.slice(0, MAX_TEXT));

/** How one attempt ended, as it is kept in the job and in a dead letter. Only failed attempts leave a record. */
export const attemptRecordSchema = z.object({
  /** ISO-8601 UTC. */
  at: recordedText,
  durationMs: z.number(),
  failure: z.string().refine((code): code is FailureCode => Object.hasOwn(FAILURES, code)),
  errcode: z.number().optional(),
  errmsg: recordedText.optional(),
  rid: recordedText.optional(),
  httpStatus: z.number().optional(),
  detail: recordedText.optional(),
});

export type AttemptRecord = z.output<typeof attemptRecordSchema>;

export function attemptRecord(startedAt: number, endedAt: number, { code, ...facts }: Failure): AttemptRecord {
  return { at: iso(startedAt), durationMs: Math.max(0, endedAt - startedAt), failure: code, ...facts };
}
