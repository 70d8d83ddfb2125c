import { timeLimit } from '../abort.ts';
import type { Logger } from '../log.ts';
import { elapsed, MINUTE, SECOND } from '../time.ts';
import { createPushHandler, type ForwardedPush } from '../weixin/push/forward-push.ts';
import { BAD_GATEWAY, GATEWAY_TIMEOUT, type PushAnswer } from './push-answer.ts';
import { createRecently } from './recently.ts';

/** Pushes on their way at once: a handler that hangs must not take the memory and the sockets of this process. */
const MAX_UNDER_WAY = 1_000;

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
 * @param maxUnderWay at once; beyond that a push is 504, and comes again.
 */
export function createForward(
  template: string,
  log: Pick<Logger, 'warn'>,
  totalMs = FORWARD_TOTAL_MS,
  maxUnderWay = MAX_UNDER_WAY,
): Forward {
  const handler = createPushHandler(template);
  const closing = new AbortController();
  const said = createRecently(MINUTE, 100, elapsed);
  let underWay = 0;

  /** Once a minute for each cause: a handler that is away is so for every push. */
  function warn(facts: { readonly appId: string; readonly detail?: string }, message: string): void {
    if (said.has(`${message} ${facts.detail ?? ''}`)) return;
    said.note(`${message} ${facts.detail ?? ''}`);
    log.warn(facts, message);
  }

  return {
    send: async (push, spentMs) => {
      const { appId } = push;
      if (underWay >= maxUnderWay) {
        warn({ appId }, 'the handler of messages is late with too many');
        return GATEWAY_TIMEOUT;
      }
      using limit = timeLimit(closing.signal, Math.max(0, totalMs - spentMs));
      underWay += 1;
      try {
        const outcome = await handler.forward(push, limit.signal);
        if (outcome.type === 'answered' && outcome.status >= 200 && outcome.status < 600) return outcome;
        const detail = outcome.type === 'answered' ? `status ${outcome.status}` : outcome.detail;
        warn({ appId, detail }, 'the handler of messages did not take a push');
        return BAD_GATEWAY;
      } catch (error) {
        if (!limit.signal.aborted) throw error;
        warn({ appId }, limit.expired ? 'the handler of messages is late' : 'a push was broken off to stop');
        return GATEWAY_TIMEOUT;
      } finally {
        underWay -= 1;
      }
    },
    close: async () => {
      closing.abort();
      await handler.close();
    },
  };
}
