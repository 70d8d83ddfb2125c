import { setTimeout as sleep } from 'node:timers/promises';

/**
 * Waits until `look` returns something other than `undefined`, and returns it. For what another process does in its own
 * time; the bound is there so that a failure is told, and no test depends on how soon it is.
 */
export async function eventually<T>(
  look: () => Promise<T | undefined> | T | undefined,
  timeoutMs = 60_000,
): Promise<T> {
  const giveUpAt = performance.now() + timeoutMs;
  for (;;) {
    const seen = await look();
    if (seen !== undefined) return seen;
    if (performance.now() > giveUpAt) throw new Error(`it has not happened within ${timeoutMs} ms: ${look.toString()}`);
    await sleep(25);
  }
}
