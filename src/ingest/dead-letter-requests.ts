import { z } from 'zod';
import type { DeadLetterFilter } from '../dead-letter/dead-letter-index.ts';
import { FAILURES } from '../failure.ts';
import { isLetterAppId } from '../operate/media-name.ts';
import { parseCursor } from './list-cursor.ts';

/** Letters in one answer, and at most worked on for one request. */
export const MAX_LETTERS = 1_000;
const LISTED_BY_DEFAULT = 100;
/** As long as a request with a rate may take, in seconds: proxies cut off what takes longer. */
const MAX_PACED_SECONDS = 60;

const REASONS = Object.entries(FAILURES).flatMap(([code, { action }]) => (action === 'dead' ? code : []));

const instantSchema = z.iso.datetime({ error: 'an ISO-8601 time in UTC such as 2026-01-31T12:00:00Z' });
const narrowing = {
  app: z
    .string()
    .refine(isLetterAppId, 'an appId is "wx" and 16 hexadecimal digits')
    .describe('of this account, or `unknown`')
    .optional(),
  reason: z.enum(REASONS).describe('given up for this reason').optional(),
  since: instantSchema.describe('died at or after').optional(),
  until: instantSchema.describe('died at or before').optional(),
};

/** A number as it stands in a query. */
function numeral(least: number, most: number): z.ZodType<number> {
  return z
    .string()
    .regex(/^-?\d{1,9}$/, 'a whole number is expected')
    .transform(Number)
    .pipe(z.int().min(least).max(most));
}

const MAX_ERRCODE = 999_999_999;

export const listQuerySchema = z.strictObject({
  ...narrowing,
  errcode: numeral(-MAX_ERRCODE, MAX_ERRCODE).describe("with this errcode of WeChat's").optional(),
  limit: numeral(1, MAX_LETTERS).describe(`at most so many; ${LISTED_BY_DEFAULT} by default`).optional(),
  cursor: z
    .string()
    .max(2_000)
    .refine((text) => parseCursor(text) !== undefined, 'a cursor is what the answer before gave as `next`')
    .describe('goes on behind the answer that gave it')
    .optional(),
});

const mass = {
  ...narrowing,
  errcode: z.int().min(-MAX_ERRCODE).max(MAX_ERRCODE).describe("with this errcode of WeChat's").optional(),
  limit: z.int().min(1).max(MAX_LETTERS).describe(`at most so many; ${MAX_LETTERS} by default`).optional(),
  all: z.boolean().describe('every open dead letter: needed where nothing narrows them').optional(),
  dryRun: z.boolean().describe('tells what would be done, and does nothing').optional(),
  by: z.string().min(1).max(128).describe('who does it, for the record; `api` by default').optional(),
  note: z.string().max(1_000).describe('why, for the record').optional(),
};

export const replayBodySchema = z
  .strictObject({
    ...mass,
    rate: z.number().positive().max(10_000).describe('letters a second').optional(),
    includeExpired: z.boolean().describe('media past their deadline too').optional(),
  })
  .refine(({ rate, limit = MAX_LETTERS }) => rate === undefined || limit / rate <= MAX_PACED_SECONDS, {
    error: `at this rate the limit takes more than ${MAX_PACED_SECONDS} s: lower the limit, and repeat the request`,
    path: ['rate'],
  });

export const discardBodySchema = z.strictObject(mass);

type Narrowing = Pick<z.output<typeof discardBodySchema>, 'app' | 'reason' | 'errcode' | 'since' | 'until'>;

export function filterOf({ app, reason, errcode, since, until }: Narrowing): DeadLetterFilter {
  return {
    ...(app === undefined ? {} : { appId: app }),
    ...(reason === undefined ? {} : { reason }),
    ...(errcode === undefined ? {} : { errcode }),
    ...(since === undefined ? {} : { since: Date.parse(since) }),
    ...(until === undefined ? {} : { until: Date.parse(until) }),
  };
}

export function listFilterOf(query: z.output<typeof listQuerySchema>): DeadLetterFilter & { readonly limit: number } {
  const { limit = LISTED_BY_DEFAULT, cursor } = query;
  const after = cursor === undefined ? undefined : parseCursor(cursor);
  return { ...filterOf(query), limit, ...(after === undefined ? {} : { after }) };
}
