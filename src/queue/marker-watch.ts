import { setTimeout as sleep } from 'node:timers/promises';
import type { RedisClient } from '../redis/connect.ts';
import { type Clock, SECOND } from '../time.ts';
import type { ObserveJob } from './job-events.ts';
import { dueNoLaterThan, hasWork, type ServedLanes } from './served-lanes.ts';

/** The longest a wait for markers lasts. */
const MARKER_WAIT_SECONDS = 5;
/** How soon the worker is looked at again after it was found busy, where nobody tells. */
const BUSY_POLL_MS = 20;
/** After an error of Redis. */
const ERROR_PAUSE_MS = SECOND;

/**
 * Waits for the markers that BullMQ sets in a lane when a job is added, while there is a free slot and nothing is known to
 * be ready. A busy worker leaves them to idle ones, which can run a job at once.
 */
export interface MarkerWatch {
  /** Watches until `stop`. */
  run(): Promise<void>;
  /** Tells that there may be nothing left to do. */
  idle(): void;
  stop(): void;
}

export interface MarkerWatchOptions {
  /** A connection of its own: it waits with blocking commands. `stop` ends it. */
  readonly blocking: RedisClient;
  readonly lanes: ServedLanes;
  readonly hasFreeSlot: () => boolean;
  readonly now: Clock;
  readonly observe: ObserveJob;
  /** Called when a marker was there. */
  readonly onWork: () => void;
}

export function createMarkerWatch(options: MarkerWatchOptions): MarkerWatch {
  const { blocking, lanes, hasFreeSlot, now, observe, onWork } = options;
  let stopped = false;
  let onIdle = (): void => undefined;

  async function wait(): Promise<void> {
    const open = [...lanes].filter(lanes.isOpen);
    const idle = open.filter(({ ready }) => !ready);
    if (!hasFreeSlot() || idle.length < open.length || idle.length === 0) return untilIdle();
    const byMarker = new Map(idle.map((state) => [state.lane.markerKey, state]));
    const popped = await blocking.bzpopmin([...byMarker.keys()], MARKER_WAIT_SECONDS);
    if (popped === null) return;
    const [key, , score] = popped;
    const state = byMarker.get(key);
    if (state === undefined) return;
    // A marker of a delayed job bears the time it is due; any other says now.
    if (Number(score) <= now()) hasWork(state);
    else dueNoLaterThan(state, Number(score));
    onWork();
  }

  async function untilIdle(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    onIdle = resolve;
    const timer = setTimeout(resolve, BUSY_POLL_MS);
    await promise;
    clearTimeout(timer);
  }

  return {
    run: async () => {
      while (!stopped) {
        try {
          await wait();
        } catch (error) {
          if (stopped) return;
          observe({ type: 'fault', where: 'markers', error });
          await sleep(ERROR_PAUSE_MS);
        }
      }
    },
    idle: () => onIdle(),
    stop: () => {
      stopped = true;
      blocking.disconnect();
    },
  };
}
