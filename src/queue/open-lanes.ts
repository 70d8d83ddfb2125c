import { createRedisBackend, type IQueueBackend } from 'bullmq';
import type { RedisClient } from '../redis/connect.ts';
import { INBOX_LANE, type Lane, type LaneOptions, type Lanes } from './lane.ts';
import { DELAYED_SCORE_UNIT, openLane } from './open-lane.ts';

/** BullMQ's event streams serve nobody here; the shortest it can keep is one node of the stream. */
const EVENTS_KEPT = 1;

/** Opens lanes over one shared connection, as BullMQ queues. */
export function openLanes(redis: RedisClient, prefix: string, { lockMs, rescueEveryMs, now }: LaneOptions): Lanes {
  const options = {
    connection: redis,
    prefix,
    skipVersionCheck: false,
    streams: { events: { maxLen: EVENTS_KEPT } },
    lockDuration: lockMs,
    stalledInterval: rescueEveryMs,
    // A job whose worker died is never given up for that: its deadline decides.
    maxStalledCount: Number.MAX_SAFE_INTEGER,
  };
  const lanes = new Map<string, Lane>();
  let root: IQueueBackend | undefined;

  /** BullMQ asks a Redis once what it can do. If the connection breaks just then, that backend fails for good. */
  function openRoot(): IQueueBackend {
    const opened = createRedisBackend(INBOX_LANE, options);
    opened.on('error', () => undefined);
    opened.waitUntilReady().catch(async () => {
      if (root !== opened) return;
      root = undefined;
      lanes.clear();
      await opened.close().catch(() => undefined);
    });
    return opened;
  }

  function lane(name: string): Lane {
    const known = lanes.get(name);
    if (known !== undefined) return known;
    root ??= openRoot();
    const opened = openLane(redis, root, name, options, now);
    lanes.set(name, opened);
    return opened;
  }

  return {
    lane,
    glance: async (names) => {
      const pipeline = redis.pipeline();
      for (const name of names) {
        const { keyOfJob: key } = lane(name);
        pipeline.exists(key('wait'), key('prioritized'));
        pipeline.zrange(key('delayed'), '0', '0', 'WITHSCORES');
      }
      const replies = await pipeline.exec();
      if (replies === null) throw new Error('Redis gave no answer to a pipeline');
      for (const [error] of replies) {
        // A key that somebody has overwritten is an error of its lane alone.
        if (error !== null && !error.message.startsWith('WRONGTYPE')) throw error;
      }
      return names.map((_, index) => {
        const [[, ready], [, delayed]] = [replies[2 * index] ?? [null, 0], replies[2 * index + 1] ?? [null, []]];
        const [, due] = Array.isArray(delayed) ? (delayed as string[]) : [];
        return {
          ready: Number(ready) > 0,
          nextAt: due === undefined ? undefined : Math.floor(Number(due) / DELAYED_SCORE_UNIT),
        };
      });
    },
    close: async () => root?.close(),
  };
}
