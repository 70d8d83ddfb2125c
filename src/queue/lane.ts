import { appIdSchema } from '../media/media-job.ts';
import type { Clock } from '../time.ts';

/**
 * A lane is the BullMQ queue of one app. Each app has its own, so that an app whose gate is closed costs nothing, none
 * can stand in the way of another, and its depth is known at once. Only this folder knows.
 *
 * The lane `media` has no app: jobs that other programs put there with a BullMQ client of their own are moved to the
 * lane of their app when a worker meets them.
 */
export const INBOX_LANE = 'media';

export function laneOf(appId: string): string {
  return `${INBOX_LANE}-${appId}`;
}

/** Returns the app of a lane; `undefined` for the inbox. */
export function appOfLane(lane: string): string | undefined {
  return appIdSchema.safeParse(lane.slice(INBOX_LANE.length + 1)).data;
}

/** A job as a worker holds it: taken out of its lane, locked with `token`. */
export interface TakenJob {
  readonly id: string;
  /** As it lies in Redis; anybody may have written it. */
  readonly data: string;
  readonly token: string;
  /** How often it has been taken, this time included. */
  readonly starts: number;
  /** How often it has been put back. One start more than that, beside this one, says that a worker died with it. */
  readonly returns: number;
  /** Unix times in milliseconds. */
  readonly enqueuedAt: number;
  readonly priority: number;
}

/** A job, or when the next delayed one is due (`undefined`: none is). */
export type Taken = { readonly job: TakenJob } | { readonly job?: undefined; readonly nextAt: number | undefined };

/** A job as anybody may look at it. */
export interface PeekedJob {
  readonly state: string;
  readonly data: string;
  readonly starts: number;
  /** When a delayed one is due, as a Unix time in milliseconds; `undefined` for others. */
  readonly dueAt: number | undefined;
}

export interface NewJob {
  readonly id: string;
  readonly data: unknown;
  readonly priority: number;
}

export interface LaneCounts {
  /** Ready to run. */
  readonly waiting: number;
  readonly delayed: number;
  readonly active: number;
  /** Left behind by something that is not ours. */
  readonly failed: number;
}

/** Thrown by a settling step when the lock has gone to another worker meanwhile: the job is no longer ours. */
export class LockLostError extends Error {
  override readonly name = 'LockLostError';
}

/**
 * What can be done with a lane. Every step is one Lua script of BullMQ and so happens whole or not at all.
 *
 * Built on BullMQ's queue backend rather than on its Worker: that one serves one queue with one blocking connection of
 * its own, and runs what comes first.
 */
export interface Lane {
  readonly name: string;
  /** Popped by whoever waits for work in this lane. */
  readonly markerKey: string;
  /** Adds jobs whose ids are not there yet; the others are left as they are. */
  add(jobs: readonly NewJob[]): Promise<void>;
  /** Removes those of these jobs that an add which broke half-way has left, in no state. Returns their ids. */
  dropStranded(ids: readonly string[]): Promise<string[]>;
  /** Returns the ids of those of these jobs that are in some state of the lane. */
  held(ids: readonly string[]): Promise<string[]>;
  take(token: string): Promise<Taken>;
  /** Puts a taken job back, to be taken again from `at` on. @throws LockLostError */
  delay(job: TakenJob, data: object | undefined, at: number): Promise<void>;
  /** Writes the data of a taken job. @throws LockLostError */
  update(job: TakenJob, data: object): Promise<void>;
  /** Removes a taken job that is done. @throws LockLostError */
  complete(job: TakenJob): Promise<void>;
  /** The same, and takes the next in the same step, with the same token. @throws LockLostError */
  completeAndTake(job: TakenJob): Promise<Taken>;
  /** Removes a taken job that is given up. @throws LockLostError */
  fail(job: TakenJob, reason: string): Promise<void>;
  /** Makes locks last. Returns the ids whose lock was no longer ours. */
  extendLocks(jobs: readonly TakenJob[]): Promise<string[]>;
  /** Puts back jobs whose worker has died. Returns their ids. */
  rescue(): Promise<string[]>;
  counts(): Promise<LaneCounts>;
  /** The ready job of the highest priority, by its priority; `undefined` when none is ready. */
  firstPriority(): Promise<number | undefined>;
  /** Reads a job wherever it is in the lane; `undefined` also for one that is in no state of it. */
  peek(id: string): Promise<PeekedJob | undefined>;
  /**
   * The lowest priority among the jobs that Redis keeps in another order: those delayed, and those rescued; `undefined`
   * when there is none. Looks at each, in pages between which Redis serves others; jobs that move meanwhile may be missed.
   */
  lowestUnordered(): Promise<number | undefined>;
  keyOfJob(id: string): string;
}

/** What lies in a lane, as far as a worker asks before it takes. */
export interface Glance {
  /** True when there is a job that can run now. */
  readonly ready: boolean;
  /** When the next delayed job is due, as a Unix time in milliseconds; `undefined` when none is delayed. */
  readonly nextAt: number | undefined;
}

export interface LaneOptions {
  readonly lockMs: number;
  /** How often a worker looks for jobs whose worker has died. */
  readonly rescueEveryMs: number;
  /** Tells which delayed jobs are due. Default: the clock of this process. */
  readonly now?: Clock;
}

/** Opens lanes over one shared connection. */
export interface Lanes {
  lane(name: string): Lane;
  /** Looks into many lanes in one round trip, and takes nothing. Returns what lies in each, in their order. */
  glance(names: readonly string[]): Promise<Glance[]>;
  close(): Promise<void>;
}
