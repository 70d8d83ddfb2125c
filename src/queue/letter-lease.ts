import type { DeadLetterSummary } from '../dead-letter/dead-letter.ts';
import type { DeadLetters } from '../dead-letter/dead-letters.ts';
import type { RedisClient } from '../redis/connect.ts';
import type { RedisKeys } from '../redis/keys.ts';
import { releaseLease, takeLease } from '../redis/lease.ts';
import { MINUTE } from '../time.ts';

/** Longer than what is done to one letter may take. */
const LEASE_MS = 2 * MINUTE;

export interface LetterDesk {
  readonly redis: RedisClient;
  readonly keys: RedisKeys;
  readonly deadLetters: DeadLetters;
}

/** - `under-way`: somebody else decides on it just now. - `not-open`: somebody has done so since the list was read. */
export interface Undecided {
  readonly outcome: 'skipped';
  readonly why: 'under-way' | 'not-open';
}

/**
 * Decides what becomes of a dead letter, while nobody else does: of two at once each would write over what the other has
 * done, and both would claim it.
 */
export async function decideOn<T>(
  { redis, keys, deadLetters }: LetterDesk,
  { jobId, diedAt }: DeadLetterSummary,
  decide: () => Promise<T>,
): Promise<T | Undecided> {
  const lease = await takeLease(redis, keys.replay(jobId), LEASE_MS);
  if (lease === undefined) return { outcome: 'skipped', why: 'under-way' };
  try {
    // Since the list was read.
    const listed = await deadLetters.index.get(jobId);
    if (listed?.diedAt !== diedAt) return { outcome: 'skipped', why: 'not-open' };
    return await decide();
  } finally {
    // It ends by itself.
    await releaseLease(redis, lease).catch(() => undefined);
  }
}
