import { normalizeIP } from '@fastify/rate-limit';
import { MINUTE, SECOND, type Stopwatch } from '../time.ts';

const MAX_FAILURES = 60;
const WINDOW_MS = MINUTE;
/** Whoever holds more addresses than this is forgotten, and begins anew: memory counts for more than his guesses. */
const MAX_ADDRESSES = 10_000;
/** One IPv6 host has as many addresses as it likes in its network. */
const IPV6_NETWORK_BITS = 64;

/**
 * Counts failed authentications by address, so that a client with a wrong token is told to slow down.
 *
 * It keeps nobody from guessing on: a right token is let in whatever came before it, or one client behind a proxy could
 * shut out all the others. What keeps tokens from being guessed is their length.
 */
export interface FailedAttempts {
  /** Notes one more. Returns after how many seconds the next may come; `undefined` while there are few. */
  note(address: string): number | undefined;
}

export function createFailedAttempts(elapsed: Stopwatch): FailedAttempts {
  const windows = new Map<string, { failures: number; readonly endsAt: number }>();

  return {
    note: (address) => {
      const network = normalizeIP(address, IPV6_NETWORK_BITS);
      const now = elapsed();
      let window = windows.get(network);
      if (window === undefined || window.endsAt <= now) {
        windows.delete(network);
        const [oldest] = windows.keys();
        if (oldest !== undefined && windows.size >= MAX_ADDRESSES) windows.delete(oldest);
        window = { failures: 0, endsAt: now + WINDOW_MS };
        windows.set(network, window);
      }
      window.failures += 1;
      return window.failures > MAX_FAILURES ? (window.endsAt - now) / SECOND : undefined;
    },
  };
}
