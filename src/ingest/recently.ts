import type { Clock } from '../time.ts';

/** Remembers for a while what has been noted, in bounded memory: beyond `max` the first is forgotten. */
export interface Recently {
  has(key: string): boolean;
  note(key: string): void;
}

export function createRecently(forMs: number, max: number, now: Clock): Recently {
  const notedAt = new Map<string, number>();
  return {
    has: (key) => Math.abs(now() - (notedAt.get(key) ?? Number.NEGATIVE_INFINITY)) < forMs,
    note: (key) => {
      // Anew at the end, where the last one is.
      notedAt.delete(key);
      notedAt.set(key, now());
      const [first] = notedAt.keys();
      if (notedAt.size > max && first !== undefined) notedAt.delete(first);
    },
  };
}
