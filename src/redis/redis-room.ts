import { SECOND, type Stopwatch } from '../time.ts';
import type { RedisClient } from './connect.ts';

/** How old a picture may be. */
const REFRESH_MS = SECOND;
/** Of its limit, that a Redis may use and still has room. */
const ROOMY_SHARE = 0.9;

/**
 * Whether a Redis has room. One that is full refuses each command by itself, but not what a script writes once it has
 * removed something.
 */
export interface RedisRoom {
  /** False too while nobody knows. */
  hasRoom(): boolean;
  /** Asks again, where the last answer is old. Never rejects: who can't be asked is not known to have room. */
  refresh(): Promise<void>;
}

export function createRedisRoom(redis: Pick<RedisClient, 'info'>, elapsed: Stopwatch): RedisRoom {
  let isRoomy = false;
  let askedAt = Number.NEGATIVE_INFINITY;
  return {
    hasRoom: () => isRoomy,
    refresh: async () => {
      if (elapsed() - askedAt < REFRESH_MS) return;
      askedAt = elapsed();
      isRoomy = await redis.info('memory').then(isRoomyBy, () => false);
    },
  };
}

/** @param info what INFO says of memory. A limit of 0 is none. */
function isRoomyBy(info: string): boolean {
  const [used, limit] = ['used_memory', 'maxmemory'].map((name) =>
    Number(new RegExp(`^${name}:(\\d+)`, 'm').exec(info)?.[1] ?? Number.NaN),
  );
  if (used === undefined || limit === undefined) return false;
  return limit === 0 || used < limit * ROOMY_SHARE;
}
