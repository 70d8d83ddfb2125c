import type { z } from 'zod';
import { describeIssue } from '../media/media-job.ts';
import type { Problem } from './problem.ts';

export type Parsed<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly problem: Problem };

const MAX_MISTAKES = 20;

/** Parses the body of a request, or says with a 400 what is wrong with it; of what was sent only the names of fields. */
export function parsedBody<T>(schema: z.ZodType<T>, body: unknown): Parsed<T> {
  return parsed(schema, body, 'the body is not what it should be');
}

export function parsedQuery<T>(schema: z.ZodType<T>, query: unknown): Parsed<T> {
  return parsed(schema, { ...(query as object) }, 'the query is not what it should be');
}

function parsed<T>(schema: z.ZodType<T>, input: unknown, detail: string): Parsed<T> {
  const result = schema.safeParse(input);
  if (result.success) return { ok: true, value: result.data };
  const mistakes = result.error.issues.slice(0, MAX_MISTAKES).map(describeIssue);
  return { ok: false, problem: { status: 400, detail, more: { mistakes } } };
}
