import { randomUUID } from 'node:crypto';
import { inject } from 'vitest';
import { closeRedis, connectRedis, type RedisClient } from '../../src/redis/connect.ts';
import { type RedisKeys, redisKeys } from '../../src/redis/keys.ts';
import { Secret } from '../../src/secret.ts';

/** A corner of the shared Redis: every key under a prefix of its own, removed at the end. */
export interface TestRedis extends AsyncDisposable {
  readonly url: string;
  readonly redis: RedisClient;
  readonly prefix: string;
  readonly keys: RedisKeys;
  /** Another connection to the same corner, as another process would have; closed along with it. */
  connect(): RedisClient;
}

export async function openTestRedis(): Promise<TestRedis> {
  const url = inject('redisUrl');
  const prefix = `{test-${randomUUID()}}`;
  const connections: RedisClient[] = [];
  const connect = (): RedisClient => {
    const client = connectRedis(
      { url: new Secret(url), prefix, sentinelMaster: '' },
      'patient',
      'test',
      () => undefined,
    );
    connections.push(client);
    return client;
  };
  const redis = connect();
  return {
    url,
    redis,
    prefix,
    keys: redisKeys(prefix),
    connect,
    [Symbol.asyncDispose]: async () => {
      const keys = await redis.keys(`${prefix.replace(/[[\]{}?*\\]/g, '\\$&')}*`);
      if (keys.length > 0) await redis.del(...keys);
      await Promise.all(connections.map(closeRedis));
    },
  };
}
