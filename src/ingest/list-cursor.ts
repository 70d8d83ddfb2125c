import { z } from 'zod';
import type { DeadLetterFilter } from '../dead-letter/dead-letter-index.ts';

const cursorSchema = z.tuple([z.iso.datetime(), z.string()]);

/** Where a list goes on: behind this letter. Opaque for callers. */
export function cursorOf({ diedAt, jobId }: NonNullable<DeadLetterFilter['after']>): string {
  return Buffer.from(JSON.stringify([diedAt, jobId])).toString('base64url');
}

/** Returns `undefined` for what is no cursor of ours. */
export function parseCursor(text: string): DeadLetterFilter['after'] {
  try {
    const parsed = cursorSchema.safeParse(JSON.parse(Buffer.from(text, 'base64url').toString()));
    return parsed.success ? { diedAt: parsed.data[0], jobId: parsed.data[1] } : undefined;
  } catch {
    return undefined;
  }
}
