import { randomUUID } from 'node:crypto';
import type { RedisClient } from './connect.ts';

/**
 * A lease: one holder in the whole fleet, for a bounded time.
 *
 * It is no lock: a holder that is too slow loses it without being told, so whatever it protects must check `owner`
 * when it writes.
 */
export interface Lease {
  readonly key: string;
  /** Stored at the key while the lease is held. */
  readonly owner: string;
}

/** Tries to take the lease. Returns `undefined` while somebody else holds it. */
export async function takeLease(redis: RedisClient, key: string, holdMs: number): Promise<Lease | undefined> {
  const owner = randomUUID();
  const taken = await redis.set(key, owner, 'PX', holdMs, 'NX');
  return taken === 'OK' ? { key, owner } : undefined;
}

/** Gives the lease back if it is still ours. Harmless to repeat. */
export async function releaseLease(redis: RedisClient, lease: Lease): Promise<void> {
  await redis.eval(
    `if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end`,
    1,
    lease.key,
    lease.owner,
  );
}
