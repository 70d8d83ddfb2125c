import { SECOND } from '../time.ts';
import type { RedisClient } from './connect.ts';

/** A replica that lags further behind can't be waited for by somebody who must answer within seconds. */
const WAIT_MS = SECOND;

/** Fewer replicas than it takes hold what was written. */
export class TooFewReplicasError extends Error {
  override readonly name = 'TooFewReplicasError';
}

/**
 * Waits until `replicas` replicas hold everything that this connection has seen written.
 *
 * Redis replicates after it has answered: without this, what a master has accepted may be lost when a replica takes its
 * place.
 *
 * @throws TooFewReplicasError when fewer have it within a second. What was written stays written: doing it again is harmless.
 * @see https://redis.io/docs/latest/commands/wait/
 */
export async function untilReplicated(redis: RedisClient, replicas: number): Promise<void> {
  if (replicas === 0) return;
  const holding = await redis.wait(replicas, WAIT_MS);
  if (holding < replicas) throw new TooFewReplicasError(`${holding} of ${replicas} replicas have it`);
}
