import { type Failure, type Result, succeed } from '../failure.ts';
import type { ArchiveStore } from '../store/archive-store.ts';
import { type Clock, iso } from '../time.ts';
import { type DeadLetter, deadLetterSchema, type OperatorNote, summaryOf } from './dead-letter.ts';
import type { DeadLetterIndex } from './dead-letter-index.ts';

/**
 * What we could not save: the dead letters in the bucket and their index in Redis.
 *
 * The order is always bucket first, then Redis, then (by the caller) the job; each step is harmless to repeat, so a
 * crash between them costs a repetition and never a second letter.
 */
export interface DeadLetters {
  /**
   * Writes a letter. What an earlier letter of this media remembers is kept: attempts, replays, and that it was
   * discarded, which is final: it is not listed again.
   */
  bury(jobId: string, key: string, letter: DeadLetter, signal: AbortSignal): Promise<Failure | undefined>;
  /** Returns the letter; `undefined` when there is none. */
  read(key: string, signal: AbortSignal): Promise<Result<DeadLetter | undefined>>;
  /** Notes in the bucket that a letter is being replayed. The index keeps it until `removeDeath`. */
  markReplayed(key: string, letter: DeadLetter, note: OperatorNote, signal: AbortSignal): Promise<Result<DeadLetter>>;
  /** Notes that a replay has archived the media, if there is a letter of it. */
  resolve(jobId: string, key: string, archivedKey: string, signal: AbortSignal): Promise<Failure | undefined>;
  /** Notes that nothing more is to be done about it, for good. One that is discarded already keeps its first note. */
  discard(
    jobId: string,
    key: string,
    letter: DeadLetter,
    note: OperatorNote,
    signal: AbortSignal,
  ): Promise<Failure | undefined>;
  readonly index: DeadLetterIndex;
}

/**
 * @param announce told the new state of each letter, once it lies in the bucket; what it throws is thrown on. Harmless to
 * repeat.
 */
export function createDeadLetters(
  store: ArchiveStore,
  index: DeadLetterIndex,
  announce: (key: string, letter: DeadLetter) => Promise<void>,
  now: Clock,
): DeadLetters {
  async function read(key: string, signal: AbortSignal): Promise<Result<DeadLetter | undefined>> {
    const document = await store.readJson(key, signal);
    if (!document.ok || document.value === undefined) return document.ok ? succeed(undefined) : document;
    const parsed = deadLetterSchema.safeParse(document.value);
    // Somebody has written something else there: treat it as nothing, rather than stop on it.
    return succeed(parsed.data);
  }

  async function write(key: string, letter: DeadLetter, signal: AbortSignal): Promise<Result<DeadLetter>> {
    const written = await store.writeJson(key, letter, signal);
    if (!written.ok) return written;
    await announce(key, letter);
    return succeed(letter);
  }

  return {
    index,
    read,

    bury: async (jobId, key, letter, signal) => {
      const before = await read(key, signal);
      if (!before.ok) return before.failure;
      const written = await write(key, before.value === undefined ? letter : continued(before.value, letter), signal);
      if (!written.ok) return written.failure;
      if (written.value.status === 'discarded') await index.discard(jobId, letter.deadline);
      else await index.add(summaryOf(jobId, key, written.value));
      return undefined;
    },

    markReplayed: (key, letter, { by, reason }, signal) =>
      write(
        key,
        { ...letter, status: 'replayed', replays: [...letter.replays, { at: iso(now()), by, reason }] },
        signal,
      ),

    resolve: async (jobId, key, archivedKey, signal) => {
      const letter = await read(key, signal);
      if (!letter.ok) return letter.failure;
      if (letter.value !== undefined) {
        const written = await write(key, { ...letter.value, status: 'resolved', archivedKey }, signal);
        if (!written.ok) return written.failure;
      }
      await index.remove(jobId);
      return undefined;
    },

    discard: async (jobId, key, letter, { by, reason }, signal) => {
      if (letter.status !== 'discarded') {
        const discarded = { at: iso(now()), by, reason };
        const written = await write(key, { ...letter, status: 'discarded', discarded }, signal);
        if (!written.ok) return written.failure;
      }
      await index.discard(jobId, letter.deadline);
      return undefined;
    },
  };
}

/** Of all its lives together; beyond that a letter keeps the beginning and the end, and says how many are missing. */
const MAX_ATTEMPTS = 5_000;

/** The story of a media that died again. Doing it twice gives the same. */
function continued(before: DeadLetter, letter: DeadLetter): DeadLetter {
  // The same death: the process died before the list had it.
  if (letter.deadline !== null && before.diedAt === letter.diedAt) return before;
  const since = letter.firstAttemptAt ?? letter.diedAt;
  const earlier = before.attempts.filter(({ at }) => at < since);
  const attempts = [...earlier, ...letter.attempts];
  const excess = Math.max(0, attempts.length - MAX_ATTEMPTS);
  attempts.splice(MAX_ATTEMPTS / 2, excess);
  const omitted = excess + (before.attemptsOmitted ?? 0) + (letter.attemptsOmitted ?? 0);
  // What is no MediaJob has no deadline: another payload under the same id is news.
  const final = before.status === 'discarded' && letter.deadline !== null;
  return {
    ...letter,
    attempts,
    ...(omitted === 0 ? {} : { attemptsOmitted: omitted }),
    firstAttemptAt: attempts[0]?.at ?? null,
    replays: before.replays,
    ...(final ? { status: before.status } : {}),
    ...(before.discarded === undefined ? {} : { discarded: before.discarded }),
  };
}
