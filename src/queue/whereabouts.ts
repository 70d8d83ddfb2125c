import type { RedisClient } from '../redis/connect.ts';
import type { RedisKeys } from '../redis/keys.ts';
import type { Lanes } from './lane.ts';
import { laneOf } from './lane.ts';

/** Where a media is, in a word. @see MediaStatus for more of one. */
export type Whereabouts = 'open' | 'archived' | 'dead' | 'discarded' | 'unknown';

/** What is asked for: with the id of its job. */
export interface Sought {
  readonly appId: string;
  readonly jobId: string;
}

/**
 * Tells where many media are, as far as Redis knows, in a few round trips. `open` are those in their lane; a job that an add
 * which broke half-way has left there, in no state, is not.
 *
 * Some hundred at a time. Rejects when Redis does.
 */
export async function whereaboutsOf(
  redis: RedisClient,
  keys: RedisKeys,
  lanes: Pick<Lanes, 'lane'>,
  media: readonly Sought[],
): Promise<readonly Whereabouts[]> {
  const places = new Map<Sought, Whereabouts>();
  // The lanes first: a job leaves its lane when its marker or letter is written. Once more at the end: a replay takes the
  // letter away when the job is in its lane.
  await lookInLanes(media);
  await lookAmongSettled(media.filter((one) => !places.has(one)));
  await lookInLanes(media.filter((one) => !places.has(one)));
  return media.map((one) => places.get(one) ?? 'unknown');

  async function lookInLanes(some: readonly Sought[]): Promise<void> {
    await Promise.all(
      [...Map.groupBy(some, ({ appId }) => appId)].map(async ([appId, ofApp]) => {
        const held = new Set(await lanes.lane(laneOf(appId)).held(ofApp.map(({ jobId }) => jobId)));
        for (const one of ofApp) if (held.has(one.jobId)) places.set(one, 'open');
      }),
    );
  }

  async function lookAmongSettled(some: readonly Sought[]): Promise<void> {
    if (some.length === 0) return;
    const pipeline = redis.pipeline();
    for (const { jobId } of some) {
      pipeline.exists(keys.archived(jobId));
      pipeline.zscore(keys.deadByTime, jobId);
      pipeline.exists(keys.discarded(jobId));
    }
    const replies = await pipeline.exec();
    if (replies === null) throw new Error('Redis gave no answer to a pipeline');
    const values = replies.map(([error, value]) => {
      if (error !== null) throw error;
      return value;
    });
    for (const [index, one] of some.entries()) {
      const [archived, score, discarded] = values.slice(3 * index, 3 * index + 3);
      if (archived === 1) places.set(one, 'archived');
      else if (score !== null) places.set(one, 'dead');
      else if (discarded === 1) places.set(one, 'discarded');
    }
  }
}
