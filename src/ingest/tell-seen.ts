import { orAbort } from '../abort.ts';
import { type Clock, MINUTE } from '../time.ts';
import type { ComponentEvents } from '../weixin/credentials/component-events.ts';
import { createRecently } from './recently.ts';

/** How long it is taken for known that an app has authorised its platform. */
const SEEN_FOR_MS = 10 * MINUTE;
const MAX_SEEN = 10_000;

/**
 * Takes note that a message of an app came by a platform. Resolves at once when that was noted minutes ago; rejects when
 * Redis does not take it. Repeating it is harmless.
 *
 * @throws the signal's reason when it aborts first.
 */
export type TellSeen = (componentAppId: string, appId: string, signal: AbortSignal) => Promise<void>;

/**
 * One at a time for each app, and however many wait for it, those who have given up leave nothing behind: while Redis
 * does not answer, the pushes of an app are one command of its connection.
 */
export function createTellSeen({ seen }: Pick<ComponentEvents, 'seen'>, now: Clock): TellSeen {
  const noted = createRecently(SEEN_FOR_MS, MAX_SEEN, now);
  const running = new Map<string, Promise<void>>();

  async function note(key: string, componentAppId: string, appId: string): Promise<void> {
    await seen(componentAppId, appId);
    noted.note(key);
  }

  return async (componentAppId, appId, signal) => {
    const key = `${componentAppId} ${appId}`;
    if (noted.has(key)) return;
    let work = running.get(key);
    if (work === undefined) {
      work = note(key, componentAppId, appId).finally(() => running.delete(key));
      running.set(key, work);
    }
    await orAbort(work, signal);
  };
}
