import { setTimeout as sleep } from 'node:timers/promises';
import { SECOND } from '../time.ts';

/**
 * Returns a function that resolves at most `perSecond` times a second, evenly; without a rate, at once. Also resolves
 * when `signal` aborts.
 */
export function steadyPace(perSecond: number | undefined): (signal: AbortSignal) => Promise<void> {
  if (perSecond === undefined) return async () => undefined;
  let next = performance.now();
  return async (signal) => {
    const wait = next - performance.now();
    next = Math.max(next, performance.now()) + SECOND / perSecond;
    if (wait > 0) await sleep(wait, undefined, { signal }).catch(() => undefined);
  };
}
