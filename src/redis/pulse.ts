import { SECOND, type Stopwatch } from '../time.ts';
import type { RedisClient } from './connect.ts';
import type { RedisKeys } from './keys.ts';

/**
 * Whether Redis answers. A connection that stands says nothing: a frozen Redis keeps it open and is silent, and commands
 * of a patient connection wait.
 */
export interface Pulse {
  /** For how long Redis has answered nothing, in milliseconds. A second is usual. */
  readonly silentMs: number;
  readonly isSilent: boolean;
  /** For how long it has answered without such a silence; 0 while it is silent. */
  readonly answeringMs: number;
  stop(): void;
}

const ASK_EVERY_MS = SECOND;
/** Longer than a Redis takes for the slowest command of ours or the rewrite of its AOF. */
const SILENT_MS = 5 * SECOND;

/** Asks for a key of ours once a second, so that on a Cluster it is our node that answers. One question at a time. */
export function takePulse(redis: RedisClient, keys: RedisKeys, stopwatch: Stopwatch): Pulse {
  let answeredAt = stopwatch();
  let answeringSince = answeredAt;
  let waiting = false;

  const silentMs = (): number => stopwatch() - answeredAt;
  const isSilent = (): boolean => silentMs() > SILENT_MS;

  function onAnswer(): void {
    if (isSilent()) answeringSince = stopwatch();
    answeredAt = stopwatch();
    waiting = false;
  }

  const timer = setInterval(() => {
    if (waiting) return;
    waiting = true;
    redis.exists(keys.lanes).then(onAnswer, () => {
      waiting = false;
    });
  }, ASK_EVERY_MS);

  return {
    get silentMs() {
      return silentMs();
    },
    get isSilent() {
      return isSilent();
    },
    get answeringMs() {
      return isSilent() ? 0 : stopwatch() - answeringSince;
    },
    stop: () => clearInterval(timer),
  };
}
