import { elapsed } from '../time.ts';
import { type Lane, LockLostError, type TakenJob } from './lane.ts';

interface Kept {
  readonly lane: Lane;
  readonly job: TakenJob;
  readonly abort: (reason: Error) => void;
  /** By the stopwatch, when the lock was last known to hold, taken before the call that set it. */
  holdsSince: number;
}

/**
 * Keeps the locks of running jobs, and tells a job at once when its lock is gone: another worker may run it by then.
 *
 * BullMQ would let both go on. A lock counts as gone when Redis says so, and also when Redis has said nothing for as
 * long as it lasts: a frozen Redis, or a frozen process.
 */
export interface LockKeeper {
  /** @param takenAt by the stopwatch, before the job was taken. */
  keep(lane: Lane, job: TakenJob, takenAt: number, abort: (reason: Error) => void): void;
  release(job: TakenJob): void;
  stop(): void;
}

/** Times a lock is renewed within its life. */
const RENEWALS = 4;

export function createLockKeeper(lockMs: number, onError: (error: unknown) => void): LockKeeper {
  const kept = new Map<TakenJob, Kept>();
  let renewing = false;

  async function renew(): Promise<void> {
    const begun = elapsed();
    for (const [lane, ofLane] of Map.groupBy(kept.values(), ({ lane }) => lane)) {
      const extended = await lane.extendLocks(ofLane.map(({ job }) => job)).catch((error: unknown) => {
        onError(error);
        return undefined;
      });
      // What is wrong with one lane is not with the others.
      if (extended === undefined) continue;
      const lost = new Set(extended);
      for (const entry of ofLane) {
        if (lost.has(entry.job.id)) giveUp(entry, 'Redis says that the lock is gone');
        else entry.holdsSince = begun;
      }
    }
  }

  function giveUp(entry: Kept, why: string): void {
    // The job may have ended while the answer was on its way.
    if (!kept.delete(entry.job)) return;
    entry.abort(new LockLostError(why));
  }

  function tick(): void {
    const now = elapsed();
    for (const entry of [...kept.values()]) {
      if (now - entry.holdsSince >= lockMs) giveUp(entry, 'the lock could not be renewed in time');
    }
    if (renewing || kept.size === 0) return;
    renewing = true;
    renew()
      .catch(onError)
      .finally(() => {
        renewing = false;
      });
  }

  const timer = setInterval(tick, lockMs / RENEWALS);
  return {
    keep: (lane, job, takenAt, abort) => {
      kept.set(job, { lane, job, abort, holdsSince: takenAt });
    },
    release: (job) => {
      kept.delete(job);
    },
    stop: () => clearInterval(timer),
  };
}
