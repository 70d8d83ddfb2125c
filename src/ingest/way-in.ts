import { timeLimit } from '../abort.ts';
import type { BatchingDoor } from '../queue/batching-door.ts';
import type { JobAdmission } from '../queue/door.ts';
import { type RedisClient, untilReady } from '../redis/connect.ts';
import type { Pulse } from '../redis/pulse.ts';

/** What became of jobs that were handed in; or why Redis did not take them, for the log. */
export type HandedIn =
  | { readonly ok: true; readonly answers: readonly JobAdmission[] }
  | { readonly ok: false; readonly error: unknown };

/** Where HTTP hands media in: the door, for callers who must be told soon whatever Redis does. */
export interface WayIn {
  /**
   * Queues jobs and answers for each, in their order. Not `ok` within two seconds when Redis is away, frozen, full or
   * refuses: some may be queued by then, and repeating the call is harmless.
   */
  handIn(jobs: readonly unknown[]): Promise<HandedIn>;
}

/** The answer itself takes its time too. */
export const HAND_IN_TIMEOUT_MS = 1_800;

export interface WayInOptions {
  readonly redis: RedisClient;
  readonly door: BatchingDoor;
  readonly pulse: Pick<Pulse, 'isSilent'>;
}

export function createWayIn({ redis, door, pulse }: WayInOptions): WayIn {
  return {
    handIn: async (jobs) => {
      // Waiting would only collect requests in memory.
      if (pulse.isSilent)
        return { ok: false, error: new DOMException('Redis has been silent for seconds', 'TimeoutError') };
      using limit = timeLimit(NEVER, HAND_IN_TIMEOUT_MS);
      try {
        await untilReady(redis, limit.signal);
        return { ok: true, answers: await door.admitEach(jobs, limit.signal) };
      } catch (error) {
        return { ok: false, error };
      }
    },
  };
}

const NEVER = new AbortController().signal;
