import { z } from 'zod';
import { FAILURES, type Failure, type FailureCode } from '../failure.ts';
import { iso } from '../time.ts';

/** How one attempt ended, as it is kept in the job and in a dead letter. Only failed attempts leave a record. */
export const attemptRecordSchema = z.object({
  /** ISO-8601 UTC. */
  at: z.string(),
  durationMs: z.number(),
  failure: z.string().refine((code): code is FailureCode => Object.hasOwn(FAILURES, code)),
  errcode: z.number().optional(),
  errmsg: z.string().optional(),
  rid: z.string().optional(),
  httpStatus: z.number().optional(),
  detail: z.string().optional(),
});

export type AttemptRecord = z.output<typeof attemptRecordSchema>;

export function attemptRecord(startedAt: number, endedAt: number, { code, ...facts }: Failure): AttemptRecord {
  return { at: iso(startedAt), durationMs: Math.max(0, endedAt - startedAt), failure: code, ...facts };
}
