/**
 * What may have been done to the counters of a job by hand. BullMQ counts starts and returns in the job's hash, in the
 * middle of its scripts: where one is no number, the script breaks with the job half moved.
 *
 * @module
 */

/**
 * True when a script broke on a counter that is none. Redis tells by words alone; and only then has the script run at
 * all, while for other errors (LOADING, READONLY, OOM) the job may be another worker's by now.
 */
export function isCounterError(error: unknown): boolean {
  return (
    error instanceof Error &&
    error.name === 'ReplyError' &&
    /hash value is not an integer|increment or decrement would overflow/.test(error.message)
  );
}

/** A counter as it should be, whatever lay in its place. */
export function countOf(value: unknown, otherwise: number): number {
  const count = Number(value ?? Number.NaN);
  return Number.isSafeInteger(count) && count >= 0 ? count : otherwise;
}
