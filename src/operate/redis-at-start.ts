import { orAbort } from '../abort.ts';
import type { Logger } from '../log.ts';
import {
  DatabaseRefusedError,
  describeRedis,
  type RedisClient,
  type RedisConfig,
  untilReady,
} from '../redis/connect.ts';
import type { FleetClock } from '../redis/fleet-clock.ts';
import { isFull, readRedisFacts, redisMistakes } from '../redis/redis-facts.ts';
import { MINUTE, SECOND } from '../time.ts';

const REMINDER_MS = 10 * SECOND;
const FACTS_TIMEOUT_MS = 5 * SECOND;
/** Between the clock of this machine and that of Redis. */
const CLOCK_TOLERANCE_MS = MINUTE;

/**
 * Waits for Redis, however long that takes, says now and then that it does, and then what is wrong with it.
 *
 * @returns why it will never do: Redis has not the database of REDIS_URL.
 * @throws the signal's reason when it aborts.
 */
export async function awaitRedis(
  redis: RedisClient,
  config: RedisConfig,
  log: Logger,
  stop: AbortSignal,
): Promise<string | undefined> {
  const where = describeRedis(config);
  const waiting = setInterval(() => {
    log.warn({ redis: where }, 'waiting for Redis: check REDIS_URL');
  }, REMINDER_MS);
  try {
    await untilReady(redis, stop);
  } catch (error) {
    if (!(error instanceof DatabaseRefusedError)) throw error;
    return `REDIS_URL names a database that ${where} does not have: ${error.message}`;
  } finally {
    clearInterval(waiting);
  }
  try {
    const facts = await orAbort(readRedisFacts(redis), AbortSignal.any([stop, AbortSignal.timeout(FACTS_TIMEOUT_MS)]));
    if (isFull(facts)) log.error('Redis is full and takes no media: raise its maxmemory');
    for (const mistake of redisMistakes(facts)) log.warn(mistake);
  } catch (error) {
    stop.throwIfAborted();
    // It broke again just now, or may not be asked: whether it takes media is told by what follows.
    log.warn({ err: error }, 'Redis tells nothing of itself');
  }
  return undefined;
}

/** Keeps the clock of the fleet, and says once when that of this machine differs. The returned function rejects when Redis does. */
export function clockKeeper(clock: FleetClock, log: Logger): () => Promise<void> {
  let differed = false;
  return async () => {
    const aheadMs = await clock.sync();
    const differs = Math.abs(aheadMs) > CLOCK_TOLERANCE_MS;
    if (differs && !differed)
      log.warn({ aheadMs }, 'the clock of this machine differs from that of Redis, which counts: check both');
    differed = differs;
  };
}
