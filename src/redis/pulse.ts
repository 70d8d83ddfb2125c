import { ReplyError } from 'ioredis';
import { orAbort } from '../abort.ts';
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
  /**
   * Resolves at once unless Redis has said nothing for as long, and then with its next word, be it a refusal: whoever
   * waited is told that one by his own command. However many wait, nothing is sent for them.
   *
   * @throws the signal's reason when it aborts first.
   */
  untilHeard(signal: AbortSignal): Promise<void>;
  stop(): void;
}

const ASK_EVERY_MS = SECOND;
/** Longer than a Redis takes for the slowest command of ours or the rewrite of its AOF. */
const SILENT_MS = 5 * SECOND;

/**
 * Asks for a key of ours once a second, and when a connection stands again, so that on a Cluster it is our node that
 * answers. One question at a time.
 */
export function takePulse(redis: RedisClient, keys: RedisKeys, stopwatch: Stopwatch): Pulse {
  let answeredAt = stopwatch();
  let answeringSince = answeredAt;
  let waiting = false;
  let heardAt = answeredAt;
  let heard = Promise.withResolvers<void>();

  const silentMs = (): number => stopwatch() - answeredAt;
  const isSilent = (): boolean => silentMs() > SILENT_MS;

  function onAnswer(): void {
    if (isSilent()) answeringSince = stopwatch();
    answeredAt = stopwatch();
    onWord();
  }

  function onWord(): void {
    heardAt = stopwatch();
    heard.resolve();
    heard = Promise.withResolvers();
  }

  function ask(): void {
    if (waiting) return;
    waiting = true;
    redis
      .exists(keys.lanes)
      .then(onAnswer, (error: unknown) => {
        if (error instanceof ReplyError) onWord();
      })
      .finally(() => {
        waiting = false;
      });
  }

  const timer = setInterval(ask, ASK_EVERY_MS);
  // Whoever has waited for it has little time left.
  redis.on('ready', ask);

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
    untilHeard: async (signal) => {
      if (stopwatch() - heardAt > SILENT_MS) await orAbort(heard.promise, signal);
    },
    stop: () => {
      clearInterval(timer);
      redis.off('ready', ask);
    },
  };
}
