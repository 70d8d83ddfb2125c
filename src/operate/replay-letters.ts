import type { DeadLetterSummary } from '../dead-letter/dead-letter.ts';
import { type Replayed, type ReplayOptions, type ReplayParts, replay } from '../queue/replay.ts';
import { MINUTE } from '../time.ts';
import { steadyPace } from './steady-pace.ts';

/** For one letter, beside the waiting for its turn. */
const REPLAY_TIMEOUT_MS = MINUTE;

export interface ReplayLettersOptions extends ReplayOptions {
  /** Letters a second; absent: as fast as it goes. */
  readonly rate?: number;
}

/**
 * Replays letters one after the other and yields what became of each.
 *
 * Stops when `signal` aborts, between two letters: one that is begun is brought to its end.
 */
export async function* replayLetters(
  parts: ReplayParts,
  letters: readonly DeadLetterSummary[],
  options: ReplayLettersOptions,
  signal: AbortSignal,
): AsyncGenerator<{ readonly letter: DeadLetterSummary; readonly done: Replayed }, void> {
  const pace = steadyPace(options.dryRun ? undefined : options.rate);
  for (const letter of letters) {
    await pace(signal);
    if (signal.aborted) return;
    yield { letter, done: await replay(parts, letter, options, AbortSignal.timeout(REPLAY_TIMEOUT_MS)) };
  }
}
