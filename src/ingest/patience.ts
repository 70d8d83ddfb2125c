import { setTimeout as sleep } from 'node:timers/promises';
import { orAbort } from '../abort.ts';
import { type RedisClient, untilReady } from '../redis/connect.ts';
import type { Pulse } from '../redis/pulse.ts';

/** Runs what needs Redis, and runs it again while Redis is away, until the signal aborts. It must be harmless to repeat. */
export type Patiently = <T>(work: () => Promise<T>, signal: AbortSignal) => Promise<T>;

/** Between two tries: a connection that has just broken may not be known to be so. */
const PAUSE_MS = 50;
/** Some KiB each. */
const MAX_WAITING = 5_000;

/** What a Redis says that will take it in a moment; anything else that it says is its last word. */
const PASSING = /^(?:READONLY|LOADING|BUSY |UNKILLABLE|CLUSTERDOWN|MASTERDOWN|TRYAGAIN|NOREPLICAS)/;

/**
 * Patience for those who are not asked a second time: WeChat pushes a message three times, and nobody knows how soon after an
 * error. The longer one push waits, the longer an outage of Redis may last.
 *
 * Of too many that wait at once the rest is refused at once, so that memory is bounded. And to a Redis that is silent
 * nothing is sent: the command of one that has given up stays with its connection until it is answered.
 */
export function createPatience(
  redis: RedisClient,
  pulse: Pick<Pulse, 'untilHeard'>,
  maxWaiting = MAX_WAITING,
): Patiently {
  let waiting = 0;
  return async (work, signal) => {
    if (waiting >= maxWaiting) throw new Error('too many wait for Redis');
    waiting += 1;
    /** What it was waited for. */
    let trouble: unknown;
    try {
      for (;;) {
        try {
          await pulse.untilHeard(signal);
          await untilReady(redis, signal);
          return await orAbort(work(), signal);
        } catch (error) {
          if (isLastWord(error)) throw error;
          if (signal.aborted) throw trouble ?? error;
          trouble = error;
          await sleep(PAUSE_MS);
        }
      }
    } finally {
      waiting -= 1;
    }
  };
}

function isLastWord(error: unknown): boolean {
  if (error instanceof TypeError || error instanceof RangeError || error instanceof ReferenceError) return true;
  return error instanceof Error && error.name === 'ReplyError' && !PASSING.test(error.message);
}
