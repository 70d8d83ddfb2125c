import { z } from 'zod';
import type { DeadLetterSummary } from '../dead-letter/dead-letter.ts';
import type { Failure } from '../failure.ts';
import { MEDIA_VARIANTS } from '../media/media-job.ts';
import { nameOf } from '../operate/media-name.ts';
import type { SkipReason } from '../queue/replay.ts';
import { SECOND } from '../time.ts';

/** A little more than a request with a rate may take. */
const WORK_TIMEOUT_MS = 75 * SECOND;

/** What became of one letter. */
export interface MassEach {
  readonly letter: DeadLetterSummary;
  readonly done:
    | { readonly outcome: 'replayed' | 'discarded' }
    | { readonly outcome: 'skipped'; readonly why: SkipReason }
    | { readonly outcome: 'failed'; readonly failure: Failure };
}

export interface MassSums {
  readonly dryRun: boolean;
  readonly outcome: 'replayed' | 'discarded';
  /** What `outcome` is called when nothing is done. */
  readonly dryOutcome: string;
  readonly letters: readonly DeadLetterSummary[];
  /** Others match too. */
  readonly more: boolean;
}

const countSchema = z.int().min(0);

export const massAnswerSchema = z.object({
  dryRun: z.boolean(),
  matched: countSchema.describe('how many were chosen'),
  replayed: countSchema.optional(),
  discarded: countSchema.optional(),
  skipped: z.record(z.string(), countSchema).describe('how many were left as they are, by why'),
  failed: countSchema,
  more: z.boolean().describe('others match, or not all of these were reached: repeat the request'),
  items: z.array(
    z.looseObject({
      appId: z.string(),
      mediaId: z.string(),
      variant: z.enum(MEDIA_VARIANTS).optional(),
      outcome: z.string(),
      why: z.string().optional(),
    }),
  ),
});

/** Lets work be done on letters until all are done, time is up or `signal` aborts, and tells what became of each. */
export async function workThrough(
  { dryRun, outcome, dryOutcome, letters, more }: MassSums,
  each: (letters: readonly DeadLetterSummary[], signal: AbortSignal) => AsyncIterable<MassEach>,
  signal: AbortSignal,
): Promise<z.output<typeof massAnswerSchema>> {
  const items: z.output<typeof massAnswerSchema>['items'] = [];
  const skipped: Record<string, number> = {};
  let succeeded = 0;
  let failed = 0;
  for await (const { letter, done } of each(letters, AbortSignal.any([signal, AbortSignal.timeout(WORK_TIMEOUT_MS)]))) {
    if (done.outcome === 'failed') failed += 1;
    else if (done.outcome === 'skipped') skipped[done.why] = (skipped[done.why] ?? 0) + 1;
    else succeeded += 1;
    const shown = done.outcome === outcome && dryRun ? dryOutcome : done.outcome;
    items.push({ ...nameOf(letter), ...done, outcome: shown });
  }
  const unreached = items.length < letters.length;
  return {
    dryRun,
    matched: letters.length,
    [outcome]: succeeded,
    skipped,
    failed,
    more: more || unreached,
    items,
  };
}
