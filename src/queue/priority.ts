import { MINUTE } from '../time.ts';

/** 2026-01-01T00:00:00Z. Priorities of waiting jobs count from it. */
const EPOCH_MS = 1_767_225_600_000;
/**
 * Media whose deadlines lie in the same bucket go first come, first served. Half the last minutes of a media at most: behind
 * a closed gate only the head of the lane is looked at, and it must not hide one whose time runs out.
 */
const BUCKET_MS = MINUTE;
/** How much earlier than it is a deadline may seem that is read off a priority. */
export const DEADLINE_PRECISION_MS = BUCKET_MS;
/**
 * BullMQ's largest; reached at the end of 2029. From then on all would be equal, so the epoch must be moved before: jobs
 * live for days, and those of both epochs mix for no longer.
 */
const MAX_PRIORITY = 2_097_151;

/**
 * Returns the BullMQ priority of a deadline: lower is sooner, so that the queue is ordered by the earliest deadline.
 *
 * Every job must have one: BullMQ runs a job without priority before all others.
 *
 * @returns a whole number from 1 to 2,097,151.
 */
export function priorityOf(deadline: number): number {
  return Math.min(MAX_PRIORITY, Math.max(1, Math.floor((deadline - EPOCH_MS) / BUCKET_MS)));
}

/** Returns the beginning of the bucket that a priority stands for, as a Unix time in milliseconds. */
export function deadlineOfPriority(priority: number): number {
  return EPOCH_MS + priority * BUCKET_MS;
}
