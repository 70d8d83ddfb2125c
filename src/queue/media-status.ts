import { createDeadLetterIndex } from '../dead-letter/dead-letter-index.ts';
import { deadlineOf } from '../media/deadline.ts';
import { type MediaJob, mediaJobId } from '../media/media-job.ts';
import type { RedisClient } from '../redis/connect.ts';
import type { RedisKeys } from '../redis/keys.ts';
import { type Clock, iso } from '../time.ts';
import { createArchivedMarkers } from './archived-marker.ts';
import { type Lanes, laneOf, type PeekedJob } from './lane.ts';
import { parseStoredJob } from './stored-job.ts';

/** What lies with a job in its lane. Absent where somebody has written there what is no MediaJob. */
export interface QueuedMedia {
  /** How many attempts have failed so far. */
  readonly attempts?: number;
  /** The failure of the last one; or, while its dead letter is being written, why it was given up. */
  readonly reason?: string;
  /** ISO-8601 UTC: until when WeChat keeps it. */
  readonly deadline?: string;
}

/**
 * Where a media is, as far as Redis knows.
 *
 * - `waiting`, `active`, `delayed`: in its lane. A delayed one is tried again at `nextTryAt`.
 * - `archived`: it lies in the bucket at `key`. Remembered until a day after its deadline, then `unknown`.
 * - `dead`: given up for `reason`; the whole letter lies in the bucket at `key`. Remembered for 30 days.
 * - `discarded`: a dead letter of which an operator has decided that nothing more is to be done.
 * - `unknown`: never handed in, or longer ago than Redis remembers; or put into BullMQ by another program and not yet
 *   found by a worker.
 */
export type MediaStatus =
  | ({ readonly state: 'waiting' | 'active' } & QueuedMedia)
  | ({ readonly state: 'delayed'; readonly nextTryAt?: string } & QueuedMedia)
  | { readonly state: 'archived'; readonly key: string }
  | {
      readonly state: 'dead';
      readonly key: string;
      readonly reason: string;
      /** WeChat's own number, where it gave one. */
      readonly errcode?: number;
      readonly attempts: number;
      readonly diedAt: string;
      readonly deadline: string | null;
    }
  | { readonly state: 'discarded' | 'unknown' };

/** Reads where a media is. Rejects when Redis does. */
export type ReadMediaStatus = (name: Pick<MediaJob, 'appId' | 'mediaId' | 'variant'>) => Promise<MediaStatus>;

/** BullMQ's states in our words. */
export const LANE_STATES: Readonly<Record<string, 'waiting' | 'active' | 'delayed'>> = {
  prioritized: 'waiting',
  waiting: 'waiting',
  wait: 'waiting',
  delayed: 'delayed',
  active: 'active',
};

export interface MediaStatusOptions {
  readonly redis: RedisClient;
  readonly keys: RedisKeys;
  readonly lanes: Pick<Lanes, 'lane'>;
  readonly mediaTtlMs: number;
  readonly now: Clock;
}

export function createMediaStatusReader(options: MediaStatusOptions): ReadMediaStatus {
  const { redis, keys, lanes, mediaTtlMs, now } = options;
  const markers = createArchivedMarkers(redis, keys, now);
  const deadLetters = createDeadLetterIndex(redis, keys, now);

  async function inLane(appId: string, id: string): Promise<MediaStatus | undefined> {
    const job = await lanes.lane(laneOf(appId)).peek(id);
    return job === undefined ? undefined : aboutJob(job, mediaTtlMs);
  }

  async function settled(id: string): Promise<MediaStatus | undefined> {
    const [[key], letter, discarded] = await Promise.all([
      markers.find([id]),
      deadLetters.get(id),
      redis.exists(keys.discarded(id)),
    ]);
    if (key !== undefined) return { state: 'archived', key };
    if (letter !== undefined) {
      const { reason, errcode, attempts, diedAt, deadline } = letter;
      const code = errcode === undefined ? {} : { errcode };
      return { state: 'dead', key: letter.key, reason, ...code, attempts, diedAt, deadline };
    }
    return discarded === 0 ? undefined : { state: 'discarded' };
  }

  return async (name) => {
    const id = mediaJobId(name);
    // The lane first: a job leaves it when its marker or letter is written. Once more at the end: a replay takes the
    // letter away when the job is in its lane.
    return (
      (await inLane(name.appId, id)) ?? (await settled(id)) ?? (await inLane(name.appId, id)) ?? { state: 'unknown' }
    );
  };
}

function aboutJob({ state: bullState, data, dueAt }: PeekedJob, mediaTtlMs: number): MediaStatus | undefined {
  const state = LANE_STATES[bullState];
  // On its way from one place to another, or left where no worker looks.
  if (state === undefined) return undefined;
  const facts = queuedMedia(data, mediaTtlMs);
  if (state !== 'delayed') return { state, ...facts };
  return { state, ...(dueAt === undefined ? {} : { nextTryAt: iso(dueAt) }), ...facts };
}

function queuedMedia(data: string, mediaTtlMs: number): QueuedMedia {
  const parsed = parseStoredJob(data);
  if (!parsed.ok) return {};
  const { job, ledger } = parsed.stored;
  const reason = ledger.verdict?.reason ?? ledger.attempts.at(-1)?.failure;
  return {
    attempts: ledger.attempts.length + (ledger.attemptsOmitted ?? 0),
    ...(reason === undefined ? {} : { reason }),
    deadline: iso(deadlineOf(job, mediaTtlMs)),
  };
}
