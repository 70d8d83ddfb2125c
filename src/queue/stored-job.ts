import { z } from 'zod';
import { type AttemptRecord, attemptRecordSchema, recordedText } from '../archive/attempt-record.ts';
import { FAILURES, type FailureCode } from '../failure.ts';
import { describeIssue, type MediaJob, mediaJobSchema } from '../media/media-job.ts';
import { packAttempts, packedAttemptsSchema, unpackAttempts } from './packed-attempts.ts';

/**
 * A history longer than this keeps its beginning and its end. Three days of tries are some 300, three days of probing a
 * closed gate some 800.
 */
export const MAX_ATTEMPTS = 1_000;
const FIRST_ATTEMPTS = 100;

function shortened(attempts: readonly AttemptRecord[]): AttemptRecord[] {
  const excess = attempts.length - MAX_ATTEMPTS;
  return excess <= 0 ? [...attempts] : attempts.toSpliced(FIRST_ATTEMPTS, excess);
}

/**
 * What has happened to a job so far. Lies in the job's data beside the MediaJob, and is written in the same step that
 * moves the job, so that it is never behind.
 */
const ledgerSchema = z.object({
  attempts: z
    .union([
      z.array(attemptRecordSchema),
      packedAttemptsSchema.transform((packed, context) => {
        try {
          return unpackAttempts(packed);
        } catch {
          context.addIssue({ code: 'custom', message: 'is no history of attempts' });
          return z.NEVER;
        }
      }),
    ])
    .transform(shortened)
    .default([]),
  /** How many attempts in the middle of a history beyond all measure are not kept. */
  attemptsOmitted: z.number().optional(),
  /** The decision to give the media up, written before the first step of burying it: whoever finds it goes on with it. */
  verdict: z
    .object({
      reason: z.string().refine((code): code is FailureCode => Object.hasOwn(FAILURES, code)),
      diedAt: z.iso.datetime(),
      detail: recordedText.optional(),
    })
    .optional(),
  /** True for a job that has been a dead letter: its letter must be told how it ends. */
  replayed: z.boolean().optional(),
});

export type Ledger = z.output<typeof ledgerSchema>;

const storedJobSchema = mediaJobSchema.extend({ ledger: ledgerSchema.optional() });

export interface StoredJob {
  readonly job: MediaJob;
  readonly ledger: Ledger;
}

export type ParsedStoredJob =
  | { readonly ok: true; readonly stored: StoredJob }
  | { readonly ok: false; readonly mistakes: readonly string[]; readonly payload: unknown };

/** Parses what lay in Redis, where anybody may have written. */
export function parseStoredJob(data: string): ParsedStoredJob {
  let payload: unknown;
  try {
    payload = JSON.parse(data);
  } catch {
    return { ok: false, mistakes: ['job: is not JSON'], payload: data };
  }
  const parsed = storedJobSchema.safeParse(payload);
  if (!parsed.success) return { ok: false, mistakes: parsed.error.issues.map(describeIssue), payload };
  const { ledger, ...job } = parsed.data;
  return { ok: true, stored: { job, ledger: ledger ?? { attempts: [] } } };
}

/** The job's data as it is written back. */
export function storedJobData({ job, ledger }: StoredJob): object {
  return { ...job, ledger: { ...ledger, attempts: packAttempts(ledger.attempts) } };
}

export function withAttempt(ledger: Ledger, attempt: AttemptRecord): Ledger {
  const attempts = [...ledger.attempts, attempt];
  const omitted = attempts.length - MAX_ATTEMPTS;
  if (omitted <= 0) return { ...ledger, attempts };
  return { ...ledger, attempts: shortened(attempts), attemptsOmitted: (ledger.attemptsOmitted ?? 0) + omitted };
}
