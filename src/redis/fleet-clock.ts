import { type Clock, SECOND, type Stopwatch } from '../time.ts';
import type { RedisClient } from './connect.ts';

/**
 * The time that a fleet goes by: that of its Redis.
 *
 * Deadlines, retries and the life of tokens are instants that workers write down for each other. By their own clocks a
 * worker that is an hour behind would leave due jobs lying, and one that is days ahead would give media up whose time
 * has not run out. Between two looks at Redis it goes on evenly, whatever is done to the system clock.
 */
export interface FleetClock {
  readonly now: Clock;
  /** Asks Redis for the time. Returns how far the system clock is ahead of it, in milliseconds. Rejects when Redis does. */
  sync(): Promise<number>;
}

/** An answer that took longer says too little about when it was given. */
const MAX_ROUND_TRIP_MS = SECOND;

/** @param system the clock of this machine: it counts until Redis has been asked. */
export function createFleetClock(redis: RedisClient, elapsed: Stopwatch, system: Clock): FleetClock {
  let aheadOfStopwatchMs = system() - elapsed();
  const now: Clock = () => Math.floor(elapsed() + aheadOfStopwatchMs);
  return {
    now,
    sync: async () => {
      const askedAt = elapsed();
      const [seconds, microseconds] = await redis.time();
      const answeredAt = elapsed();
      if (answeredAt - askedAt <= MAX_ROUND_TRIP_MS) {
        const time = Number(seconds) * SECOND + Number(microseconds) / SECOND;
        aheadOfStopwatchMs = time - (askedAt + answeredAt) / 2;
      }
      return system() - now();
    },
  };
}
