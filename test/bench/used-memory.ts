import type { RedisClient } from '../../src/redis/connect.ts';

/** Bytes that Redis says its data take. */
export async function usedMemory(redis: RedisClient): Promise<number> {
  return Number(/^used_memory:(\d+)/m.exec(await redis.info('memory'))?.[1]);
}
