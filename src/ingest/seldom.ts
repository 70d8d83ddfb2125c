import type { Logger } from '../log.ts';
import { MINUTE, type Stopwatch } from '../time.ts';

const EVERY_MS = MINUTE;

/** Lines that would be much the same for every request, and that anybody can cause: written once a minute. */
export interface SeldomLog {
  /**
   * Writes a warning, unless one with this message and key was written less than a minute ago. `omitted` in it tells how
   * many have been left out since.
   *
   * @param key one of few, such as a route and a status: all are remembered. Nothing that a caller chooses.
   */
  warn(key: string, facts: object, message: string): void;
}

export function createSeldomLog(log: Pick<Logger, 'warn'>, elapsed: Stopwatch): SeldomLog {
  const lines = new Map<string, { readonly writtenAt: number; omitted: number }>();

  return {
    warn: (key, facts, message) => {
      const name = `${message} ${key}`;
      const now = elapsed();
      const last = lines.get(name);
      if (last !== undefined && now - last.writtenAt < EVERY_MS) {
        last.omitted += 1;
        return;
      }
      lines.set(name, { writtenAt: now, omitted: 0 });
      log.warn({ ...facts, omitted: last?.omitted ?? 0 }, message);
    },
  };
}
