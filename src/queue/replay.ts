import type { DeadLetter, DeadLetterSummary, OperatorNote } from '../dead-letter/dead-letter.ts';
import type { Failure } from '../failure.ts';
import { deadlineOf } from '../media/deadline.ts';
import { type MediaJob, mediaJobId, parseMediaJob } from '../media/media-job.ts';
import type { Clock } from '../time.ts';
import { type Lanes, laneOf } from './lane.ts';
import { decideOn, type LetterDesk } from './letter-lease.ts';
import { priorityOf } from './priority.ts';
import { type Ledger, parseStoredJob, storedJobData } from './stored-job.ts';

/** What became of one dead letter that was to be replayed. */
export type Replayed =
  | { readonly outcome: 'replayed' }
  /** Nothing was done. */
  | { readonly outcome: 'skipped'; readonly why: SkipReason }
  | { readonly outcome: 'failed'; readonly failure: Failure };

/**
 * - `expired`: WeChat no longer has the media.
 * - `not-a-job`: the letter holds no MediaJob.
 * - `not-open`: it has been replayed, resolved or discarded meanwhile.
 * - `missing`: there is no letter in the bucket.
 * - `settling`: a job of it has not left the queue yet; a moment later it has.
 * - `under-way`: somebody else replays or discards it just now.
 */
export type SkipReason = 'expired' | 'not-a-job' | 'not-open' | 'missing' | 'settling' | 'under-way';

export interface ReplayParts extends LetterDesk {
  readonly lanes: Lanes;
  readonly mediaTtlMs: number;
  readonly now: Clock;
}

export interface ReplayOptions {
  readonly note: OperatorNote;
  /** Tries media past their deadline too. */
  readonly includeExpired: boolean;
  /** Tells what would be done, and does nothing. */
  readonly dryRun: boolean;
}

/**
 * Puts a dead letter back to work, with a fresh history.
 *
 * The letter in the bucket first, then the job, then the index: a crash in between leaves the letter listed, and
 * replaying it again is harmless. One at a time decides on a letter: a second replay would write over what has become
 * of the first.
 */
export async function replay(
  parts: ReplayParts,
  summary: DeadLetterSummary,
  options: ReplayOptions,
  signal: AbortSignal,
): Promise<Replayed> {
  if (options.dryRun) return putBack(parts, summary, options, signal);
  return decideOn(parts, summary, () => putBack(parts, summary, options, signal));
}

async function putBack(
  parts: ReplayParts,
  { key, diedAt }: DeadLetterSummary,
  options: ReplayOptions,
  signal: AbortSignal,
): Promise<Replayed> {
  const { redis, keys, lanes, deadLetters, mediaTtlMs, now } = parts;
  const read = await deadLetters.read(key, signal);
  if (!read.ok) return { outcome: 'failed', failure: read.failure };
  const letter = read.value;
  if (letter === undefined) return { outcome: 'skipped', why: 'missing' };
  if (letter.status === 'resolved' || letter.status === 'discarded') return { outcome: 'skipped', why: 'not-open' };
  const job = jobOf(letter, now());
  if (job === undefined) return { outcome: 'skipped', why: 'not-a-job' };
  if (!options.includeExpired && now() >= deadlineOf(job, mediaTtlMs)) return { outcome: 'skipped', why: 'expired' };
  if (options.dryRun) return { outcome: 'replayed' };

  const id = mediaJobId(job);
  const lane = lanes.lane(laneOf(job.appId));
  const inLane = await lane.peek(id);
  if (inLane === undefined) {
    const marked = await deadLetters.markReplayed(key, letter, options.note, signal);
    if (!marked.ok) return { outcome: 'failed', failure: marked.failure };
    await redis.sadd(keys.lanes, job.appId);
    const data = storedJobData({ job, ledger: { attempts: [], replayed: true } });
    await lane.dropStranded([id]);
    await lane.add([{ id, data, priority: priorityOf(deadlineOf(job, mediaTtlMs)) }]);
  } else if (!isReplay(inLane.data)) return { outcome: 'skipped', why: 'settling' };
  // Unless it has died again meanwhile, and is listed for that.
  await deadLetters.index.removeDeath({ jobId: id, diedAt });
  return { outcome: 'replayed' };
}

function jobOf(letter: DeadLetter, now: number): MediaJob | undefined {
  const parsed = parseMediaJob(letter.job, now);
  return parsed.ok ? parsed.job : undefined;
}

/**
 * True for the job of a replay that was broken off. Any other is on its way out, or will tell by itself how it ends:
 * adding one would do nothing, and then it would be gone.
 */
function isReplay(data: string): boolean {
  const parsed = parseStoredJob(data);
  if (!parsed.ok) return false;
  const { replayed, verdict }: Ledger = parsed.stored.ledger;
  return replayed === true && verdict === undefined;
}
