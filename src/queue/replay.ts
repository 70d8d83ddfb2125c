import type { DeadLetter, DeadLetterSummary, OperatorNote } from '../dead-letter/dead-letter.ts';
import type { DeadLetters } from '../dead-letter/dead-letters.ts';
import type { Failure } from '../failure.ts';
import { deadlineOf } from '../media/deadline.ts';
import { type MediaJob, mediaJobId, parseMediaJob } from '../media/media-job.ts';
import type { RedisClient } from '../redis/connect.ts';
import type { RedisKeys } from '../redis/keys.ts';
import type { Clock } from '../time.ts';
import { type Lanes, laneOf } from './lane.ts';
import { priorityOf } from './priority.ts';
import { parseStoredJob, storedJobData } from './stored-job.ts';

/** What became of one dead letter that was to be replayed. */
export type Replayed =
  | { readonly outcome: 'replayed' }
  /** Nothing was done. */
  | { readonly outcome: 'skipped'; readonly why: SkipReason }
  | { readonly outcome: 'failed'; readonly failure: Failure };

/**
 * - `expired`: WeChat no longer has the media.
 * - `not-a-job`: the letter holds no MediaJob.
 * - `not-open`: it has been resolved or discarded meanwhile.
 * - `missing`: there is no letter in the bucket.
 * - `settling`: its job has not left the queue yet; a moment later it has.
 */
export type SkipReason = 'expired' | 'not-a-job' | 'not-open' | 'missing' | 'settling';

export interface ReplayParts {
  readonly redis: RedisClient;
  readonly keys: RedisKeys;
  readonly lanes: Lanes;
  readonly deadLetters: DeadLetters;
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
 * replaying it again is harmless.
 */
export async function replay(
  parts: ReplayParts,
  { key }: DeadLetterSummary,
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
  if (inLane !== undefined && isDying(inLane.data)) return { outcome: 'skipped', why: 'settling' };

  const marked = await deadLetters.markReplayed(key, letter, options.note, signal);
  if (!marked.ok) return { outcome: 'failed', failure: marked.failure };
  await redis.sadd(keys.lanes, job.appId);
  const data = storedJobData({ job, ledger: { attempts: [], replayed: true } });
  await lane.add([{ id, data, priority: priorityOf(deadlineOf(job, mediaTtlMs)) }]);
  // Unless it has died again meanwhile, and is listed for that.
  if ((await deadLetters.index.get(id))?.diedAt === letter.diedAt) await deadLetters.index.remove(id);
  return { outcome: 'replayed' };
}

function jobOf(letter: DeadLetter, now: number): MediaJob | undefined {
  const parsed = parseMediaJob(letter.job, now);
  return parsed.ok ? parsed.job : undefined;
}

/** True for a job that is on its way out: adding it again would do nothing, and then it would be gone. */
function isDying(data: string): boolean {
  const parsed = parseStoredJob(data);
  return parsed.ok && parsed.stored.ledger.verdict !== undefined;
}
