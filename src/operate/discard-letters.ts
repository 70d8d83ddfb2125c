import type { DeadLetterSummary, OperatorNote } from '../dead-letter/dead-letter.ts';
import type { DeadLetters } from '../dead-letter/dead-letters.ts';
import type { Failure } from '../failure.ts';
import { MINUTE } from '../time.ts';

/** For one letter. */
const DISCARD_TIMEOUT_MS = MINUTE;

/** What became of one dead letter that was to be discarded. */
export type Discarded = { readonly outcome: 'discarded' } | { readonly outcome: 'failed'; readonly failure: Failure };

export interface DiscardOptions {
  readonly note: OperatorNote;
  /** Tells what would be done, and does nothing. */
  readonly dryRun: boolean;
}

/**
 * Notes of letters, one after the other, that nothing more is to be done, and yields what became of each.
 *
 * Stops when `signal` aborts, between two letters: one that is begun is brought to its end.
 */
export async function* discardLetters(
  deadLetters: DeadLetters,
  letters: readonly DeadLetterSummary[],
  options: DiscardOptions,
  signal: AbortSignal,
): AsyncGenerator<{ readonly letter: DeadLetterSummary; readonly done: Discarded }, void> {
  for (const letter of letters) {
    if (signal.aborted) return;
    const trouble = options.dryRun ? undefined : await discard(deadLetters, letter, options.note);
    yield { letter, done: trouble === undefined ? { outcome: 'discarded' } : { outcome: 'failed', failure: trouble } };
  }
}

async function discard(
  deadLetters: DeadLetters,
  { jobId, key, deadline }: DeadLetterSummary,
  note: OperatorNote,
): Promise<Failure | undefined> {
  const signal = AbortSignal.timeout(DISCARD_TIMEOUT_MS);
  const letter = await deadLetters.read(key, signal);
  if (!letter.ok) return letter.failure;
  if (letter.value === undefined) await deadLetters.index.discard(jobId, deadline);
  else if (letter.value.status === 'resolved') await deadLetters.index.remove(jobId);
  else return deadLetters.discard(jobId, key, letter.value, note, signal);
  return undefined;
}
