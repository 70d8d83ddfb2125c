/** Lengths of time in milliseconds. */
export const SECOND = 1_000;
export const MINUTE = 60 * SECOND;
export const HOUR = 60 * MINUTE;
export const DAY = 24 * HOUR;

/** The current Unix time in milliseconds. Injected wherever a decision depends on it. */
export type Clock = () => number;

/**
 * Milliseconds since some moment that does not matter, by a clock that nobody sets. For lengths of time: the system
 * clock may be stepped by an hour in between.
 */
export type Stopwatch = () => number;

export const elapsed: Stopwatch = () => performance.now();

/** A number in [0, 1). Injected wherever a decision depends on chance. */
export type Random = () => number;

/** Returns a length of time drawn evenly from [from, to), in whole milliseconds. */
export function between(from: number, to: number, random: Random): number {
  return Math.floor(from + (to - from) * random());
}

/** Returns the instant as ISO-8601 in UTC, for records and logs. */
export function iso(timeMs: number): string {
  return new Date(timeMs).toISOString();
}
