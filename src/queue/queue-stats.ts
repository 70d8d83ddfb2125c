import type { RedisClient } from '../redis/connect.ts';
import type { RedisKeys } from '../redis/keys.ts';
import { appOfLane, INBOX_LANE, type Lane, type LaneCounts, type Lanes, laneOf } from './lane.ts';
import { deadlineOfPriority } from './priority.ts';

/** What waits, in one lane. */
export interface LaneStats extends LaneCounts {
  /** Absent for the inbox. */
  readonly appId?: string;
  /** The nearest deadline of what waits, within five minutes; absent when nothing waits. Unix time in milliseconds. */
  readonly nearestDeadline?: number;
}

/** Delayed jobs are not ordered by deadline: so many of those due first are looked at. */
const DELAYED_SAMPLE = 200;

/** Reads what waits in every lane: those of `apps`, and those that any producer has used. */
export async function readQueueStats(
  redis: RedisClient,
  keys: RedisKeys,
  lanes: Lanes,
  apps: readonly string[],
): Promise<LaneStats[]> {
  const appIds = new Set([...apps, ...(await redis.smembers(keys.lanes))]);
  const names = [INBOX_LANE, ...[...appIds].toSorted().map(laneOf)];
  const stats = await Promise.all(names.map((name) => readLane(redis, lanes.lane(name))));
  return stats.filter(
    ({ appId, waiting, delayed, active, failed }) => appId !== undefined || waiting + delayed + active + failed > 0,
  );
}

async function readLane(redis: RedisClient, lane: Lane): Promise<LaneStats> {
  const [counts, first] = await Promise.all([lane.counts(), lane.firstPriority()]);
  const priorities = first === undefined ? [] : [first];
  if (counts.delayed > 0) {
    const pipeline = redis.pipeline();
    for (const id of await lane.delayedIds(DELAYED_SAMPLE)) pipeline.hget(lane.keyOfJob(id), 'priority');
    for (const [, priority] of (await pipeline.exec()) ?? [])
      if (Number(priority) > 0) priorities.push(Number(priority));
  }
  const appId = appOfLane(lane.name);
  return {
    ...counts,
    ...(appId === undefined ? {} : { appId }),
    ...(priorities.length === 0 ? {} : { nearestDeadline: deadlineOfPriority(Math.min(...priorities)) }),
  };
}
