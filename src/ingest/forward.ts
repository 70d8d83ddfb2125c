import { timeLimit } from '../abort.ts';
import type { Logger } from '../log.ts';
import { SECOND } from '../time.ts';
import { createPushHandler, type ForwardedPush } from '../weixin/push/forward-push.ts';
import { BAD_GATEWAY, GATEWAY_TIMEOUT, type PushAnswer } from './push-answer.ts';

/** WeChat cuts the connection 5 s after it has begun; the answer has a way to go, too. */
export const FORWARD_TOTAL_MS = 4.5 * SECOND;

/** Pushes on their way to the operator's own handler, where there is one. */
export interface Forward {
  /**
   * Sends a push on, and returns what the handler answers. One that is late or away is 504 or 502: WeChat pushes the
   * message again, as it would without us in between.
   *
   * @param spentMs what the push has taken already, since it began to come.
   */
  send(push: ForwardedPush, spentMs: number): Promise<PushAnswer>;
  /** Breaks off what is on its way. */
  close(): Promise<void>;
}

/**
 * @param template WEIXIN_FORWARD_URL.
 * @param totalMs for a push as a whole, from its first byte to the handler's last.
 */
export function createForward(template: string, log: Pick<Logger, 'warn'>, totalMs = FORWARD_TOTAL_MS): Forward {
  const handler = createPushHandler(template);
  const closing = new AbortController();

  return {
    send: async (push, spentMs) => {
      using limit = timeLimit(closing.signal, Math.max(0, totalMs - spentMs));
      const { appId } = push;
      try {
        const outcome = await handler.forward(push, limit.signal);
        if (outcome.type === 'answered') return outcome;
        log.warn({ appId, detail: outcome.detail }, 'the handler of messages did not take a push');
        return BAD_GATEWAY;
      } catch (error) {
        if (!limit.signal.aborted) throw error;
        log.warn({ appId }, limit.expired ? 'the handler of messages is late' : 'a push was broken off to stop');
        return GATEWAY_TIMEOUT;
      }
    },
    close: async () => {
      closing.abort();
      await handler.close();
    },
  };
}
