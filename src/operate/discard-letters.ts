import type { DeadLetterSummary, OperatorNote } from '../dead-letter/dead-letter.ts';
import type { Failure } from '../failure.ts';
import { decideOn, type LetterDesk, type Undecided } from '../queue/letter-lease.ts';
import { MINUTE } from '../time.ts';

/** For one letter. */
const DISCARD_TIMEOUT_MS = MINUTE;

/** What became of one dead letter that was to be discarded. */
export type Discarded =
  | { readonly outcome: 'discarded' }
  | Undecided
  | { readonly outcome: 'failed'; readonly failure: Failure };

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
  desk: LetterDesk,
  letters: readonly DeadLetterSummary[],
  options: DiscardOptions,
  signal: AbortSignal,
): AsyncGenerator<{ readonly letter: DeadLetterSummary; readonly done: Discarded }, void> {
  for (const letter of letters) {
    if (signal.aborted) return;
    const done: Discarded = options.dryRun
      ? { outcome: 'discarded' }
      : await decideOn(desk, letter, () => discard(desk, letter, options.note));
    yield { letter, done };
  }
}

async function discard(
  { deadLetters }: LetterDesk,
  { jobId, key, deadline }: DeadLetterSummary,
  note: OperatorNote,
): Promise<Discarded> {
  const signal = AbortSignal.timeout(DISCARD_TIMEOUT_MS);
  const letter = await deadLetters.read(key, signal);
  if (!letter.ok) return { outcome: 'failed', failure: letter.failure };
  if (letter.value?.status === 'resolved') {
    await deadLetters.index.remove(jobId);
    return { outcome: 'skipped', why: 'not-open' };
  }
  if (letter.value === undefined) await deadLetters.index.discard(jobId, deadline);
  else {
    const trouble = await deadLetters.discard(jobId, key, letter.value, note, signal);
    if (trouble !== undefined) return { outcome: 'failed', failure: trouble };
  }
  return { outcome: 'discarded' };
}
