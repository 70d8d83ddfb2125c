import { Cluster, type Redis } from 'ioredis';
import type { RedisClient } from './connect.ts';

const PAGE = 1_000;

/**
 * Goes through all keys that begin with a text, a page at a time; a key may come twice. One that is there from beginning to
 * end is not missed.
 */
export async function* scanKeys(redis: RedisClient, beginning: string): AsyncIterable<readonly string[]> {
  const pattern = `${beginning.replace(/[\\[\]?*^-]/g, '\\$&')}*`;
  for (const node of mastersOf(redis)) {
    let cursor = '0';
    do {
      const [next, page] = await node.scan(cursor, 'MATCH', pattern, 'COUNT', PAGE);
      cursor = next;
      if (page.length > 0) yield page;
    } while (cursor !== '0');
  }
}

/** The servers that hold the data. */
export function mastersOf(redis: RedisClient): readonly Redis[] {
  return redis instanceof Cluster ? redis.nodes('master') : [redis];
}
