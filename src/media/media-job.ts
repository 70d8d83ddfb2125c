import { z } from 'zod';
import { MINUTE } from '../time.ts';
import { MEDIA_KINDS } from './kind.ts';

/** WeChat's clock and ours may differ; a `receivedAt` further ahead than this would only stretch the deadline. */
const MAX_CLOCK_SKEW_MS = 10 * MINUTE;

/** Whoever has made more has not made them by mistake. */
const MAX_MISTAKES = 20;
/** The names of fields are repeated in a mistake, and may be of any length. */
const MAX_MISTAKE_LENGTH = 300;

export const appIdSchema = z.string().regex(/^wx[0-9a-f]{16}$/, 'an appId is "wx" and 16 hexadecimal digits');

/** Other renderings of one media that WeChat has. */
export const MEDIA_VARIANTS = ['hd-voice'] as const;

export type MediaVariant = (typeof MEDIA_VARIANTS)[number];

export const mediaIdSchema = z
  .string()
  .regex(/^[A-Za-z0-9_-]{1,256}$/, 'a media_id is 1 to 256 characters of A-Z, a-z, 0-9, "_" and "-"');

export const MAX_LABELS = 16;

const labelsSchema = z
  .unknown()
  // A record would drop this one name without a word.
  .refine((labels) => !Object.hasOwn(Object(labels) as object, '__proto__'), 'a label is not named __proto__')
  .pipe(
    z.record(z.string().regex(/^[A-Za-z0-9_.-]{1,64}$/), z.string().max(256), {
      error: ({ code }) =>
        code === 'invalid_key'
          ? 'a label is named by 1 to 64 characters of A-Z, a-z, 0-9, "_", "." and "-"'
          : undefined,
    }),
  )
  .refine((labels) => Object.keys(labels).length <= MAX_LABELS, `at most ${MAX_LABELS} labels`);

/**
 * The wish to archive one media: what producers enqueue and workers run. Version 1 of the contract.
 *
 * `receivedAt` is when WeChat created the message, in UTC; the deadline counts from it. Unknown fields are refused, so
 * that a misspelt one is noticed.
 */
export const mediaJobSchema = z.strictObject({
  v: z.literal(1),
  appId: appIdSchema,
  mediaId: mediaIdSchema,
  kind: z.enum(MEDIA_KINDS).optional(),
  receivedAt: z.iso.datetime({ error: 'an ISO-8601 time in UTC such as 2026-01-31T12:00:00Z' }),
  variant: z.enum(MEDIA_VARIANTS).optional(),
  source: z
    .strictObject({ messageId: z.string().min(1).max(128).optional(), openId: z.string().min(1).max(128).optional() })
    .optional(),
  labels: labelsSchema.optional(),
});

export type MediaJob = z.output<typeof mediaJobSchema>;

/** The parsed job, or one sentence a mistake, each naming its field. */
export type ParsedMediaJob =
  | { readonly ok: true; readonly job: MediaJob }
  | { readonly ok: false; readonly mistakes: readonly string[] };

/** Parses what came through a door. `now` bounds `receivedAt`; the job payload is never changed. */
export function parseMediaJob(input: unknown, now: number): ParsedMediaJob {
  const parsed = mediaJobSchema.safeParse(input);
  if (!parsed.success) return { ok: false, mistakes: parsed.error.issues.slice(0, MAX_MISTAKES).map(describeIssue) };
  if (Date.parse(parsed.data.receivedAt) > now + MAX_CLOCK_SKEW_MS) {
    return { ok: false, mistakes: [`receivedAt: lies in the future (${parsed.data.receivedAt})`] };
  }
  return { ok: true, job: parsed.data };
}

/** Puts a zod issue in one short line: `field: what is wrong`. Never repeats the value, which may be an openId. */
export function describeIssue(issue: { readonly path: readonly PropertyKey[]; readonly message: string }): string {
  const field = issue.path.length === 0 ? 'job' : issue.path.join('.');
  return `${field.slice(0, MAX_MISTAKE_LENGTH)}: ${issue.message.slice(0, MAX_MISTAKE_LENGTH)}`;
}

/**
 * The identity of a media: the queue's job id and the stem of everything stored about it. Two variants of one media are
 * two media. Holds no colon, which BullMQ forbids.
 */
export function mediaJobId(job: Pick<MediaJob, 'appId' | 'mediaId' | 'variant'>): string {
  const id = `${job.appId}-${job.mediaId}`;
  return job.variant === undefined ? id : `${id}.${job.variant}`;
}
