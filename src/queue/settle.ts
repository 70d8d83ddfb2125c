import type { ArchivedObject } from '../archive/archive-media.ts';
import { attemptRecord } from '../archive/attempt-record.ts';
import { mediaRowOf } from '../catalog/media-table.ts';
import { mediaEntryOf } from '../catalog/outbox.ts';
import { type DeadLetter, invalidJobId } from '../dead-letter/dead-letter.ts';
import type { DeadLetters } from '../dead-letter/dead-letters.ts';
import { type Failure, type FailureCode, type Result, succeed } from '../failure.ts';
import { deadlineOf } from '../media/deadline.ts';
import { type MediaJob, mediaJobId } from '../media/media-job.ts';
import { deadLetterKey } from '../store/object-keys.ts';
import { type Clock, iso, MINUTE } from '../time.ts';
import type { ArchivedMarkers } from './archived-marker.ts';
import type { ObserveJob } from './job-events.ts';
import type { Lane, Taken, TakenJob } from './lane.ts';
import { type Ledger, type StoredJob, storedJobData, withAttempt } from './stored-job.ts';

/** A job on its way through a worker. */
export interface HeldJob extends StoredJob {
  readonly lane: Lane;
  readonly taken: TakenJob;
  readonly slot?: Slot;
}

/** The slot of a worker that a job runs in. */
export interface Slot {
  /** True where the next job it would get is one of the same lane. */
  goesOn(): boolean;
  /** @param step ends the job that is done, and takes the next one. */
  goOn(step: () => Promise<Taken>): Promise<void>;
  /** Called when a job could not be settled. */
  rest(): void;
}

export interface SettleParts {
  readonly markers: ArchivedMarkers;
  readonly deadLetters: DeadLetters;
  /** Looks for the media in the bucket and removes what an interrupted upload may have left there. */
  readonly recover: (job: MediaJob, signal: AbortSignal) => Promise<Result<ArchivedObject | undefined>>;
  /** Removes what lies of the media in the bucket. */
  readonly forget: (job: MediaJob, signal: AbortSignal) => Promise<Failure | undefined>;
  readonly mediaTtlMs: number;
  readonly now: Clock;
  readonly observe: ObserveJob;
}

/** When a step of settling failed, the job comes back after this long to do it again. */
const POSTPONE_MS = MINUTE;

/**
 * Settles outcomes with the queue: the one file that moves a taken job on.
 *
 * Each function ends with the one step that takes the job out of this worker's hands; whatever must be true by then is
 * written before. A crash before that step brings the job back, and every step before it is harmless to repeat.
 *
 * @throws LockLostError when the job belongs to another worker by now.
 */
export interface Settle {
  /** Marker and catalog, then dead letter (of a replay), then the job goes. */
  archived(held: HeldJob, object: ArchivedObject, startedAt: number, signal: AbortSignal): Promise<void>;
  /** For a media that another job has archived meanwhile: only the job goes. */
  known(held: HeldJob, key: string, signal: AbortSignal): Promise<void>;
  /** For a media that an operator has erased: what lies of it in the bucket goes, then the job. */
  erased(held: HeldJob, signal: AbortSignal): Promise<void>;
  /** Removes what lies of an erased media in the bucket, whoever has its job. */
  forget(job: MediaJob, signal: AbortSignal): Promise<Failure | undefined>;
  /** The attempt goes on record and the job back to its lane, until `at`, in one step. */
  again(held: HeldJob, failure: Failure, startedAt: number, at: number): Promise<void>;
  /** The verdict, then `bury`. */
  dead(held: HeldJob, reason: FailureCode, failure: Failure, startedAt: number, signal: AbortSignal): Promise<void>;
  /** Bucket, then Redis, then the job goes. For a job with a verdict. */
  bury(held: HeldJob, verdict: NonNullable<Ledger['verdict']>, signal: AbortSignal): Promise<void>;
  /** As `bury`, for what is no MediaJob. */
  buryInvalid(lane: Lane, taken: TakenJob, letter: DeadLetter, key: string, signal: AbortSignal): Promise<void>;
  /** For a job of the inbox that the door has taken into the lane of its app: only this copy goes. */
  moved(lane: Lane, taken: TakenJob): Promise<void>;
  /** A step can't be done now: back to its lane as it lies in Redis, until `at`, or for a minute. */
  postpone(held: Pick<HeldJob, 'lane' | 'taken'>, failure: Failure, at?: number): Promise<void>;
  /** Back to its lane as it lies in Redis, nothing used up. */
  release(lane: Lane, taken: TakenJob): Promise<void>;
}

export function createSettle(parts: SettleParts): Settle {
  const { markers, deadLetters, recover, forget, mediaTtlMs, now, observe } = parts;

  async function archived(
    held: HeldJob,
    object: ArchivedObject,
    startedAt: number,
    signal: AbortSignal,
  ): Promise<void> {
    const { job, ledger } = held;
    const jobId = mediaJobId(job);
    const deadline = deadlineOf(job, mediaTtlMs);
    const row = mediaRowOf(object);
    const entry = row === undefined ? undefined : mediaEntryOf(row, !object.created);
    // In one step with the question: what is erased after it has the marker, the entry and the object to find.
    const [isMarked, hasLetter] = await Promise.all([
      markers.mark(jobId, object, deadline, entry),
      hasDeadLetter(jobId),
    ]);
    if (!isMarked) return erased(held, signal);
    if (!(await finish(held, object.key, hasLetter, signal))) return;
    const attempt = ledger.attempts.length + 1;
    observe({ type: 'archived', job, object, durationMs: now() - startedAt, attempt, marginMs: deadline - now() });
  }

  async function erased(held: HeldJob, signal: AbortSignal): Promise<void> {
    const { job, lane, taken } = held;
    const unforgotten = await forget(job, signal);
    if (unforgotten !== undefined) return postpone(held, unforgotten);
    await lane.complete(taken);
    observe({ type: 'erased', jobId: taken.id });
  }

  async function known(held: HeldJob, key: string, signal: AbortSignal): Promise<void> {
    const hasLetter = await hasDeadLetter(mediaJobId(held.job));
    if (await finish(held, key, hasLetter, signal)) observe({ type: 'duplicate', jobId: held.taken.id });
  }

  /**
   * Not only a replay may have one: a producer that was held up between asking for a media and adding it may have added
   * one that had died by then.
   */
  async function hasDeadLetter(jobId: string): Promise<boolean> {
    const [listed] = await deadLetters.index.hasAny([jobId]);
    return listed === true;
  }

  /** Tells the dead letter, if there is one, then removes the job. Returns false when it has to be done later. */
  async function finish(held: HeldJob, archivedKey: string, hasLetter: boolean, signal: AbortSignal): Promise<boolean> {
    const { job, ledger } = held;
    if (ledger.replayed === true || hasLetter) {
      const unresolved = await deadLetters.resolve(mediaJobId(job), deadLetterKey(job), archivedKey, signal);
      if (unresolved !== undefined) {
        await postpone(held, unresolved);
        return false;
      }
    }
    await complete(held);
    return true;
  }

  async function complete({ lane, taken, slot }: HeldJob): Promise<void> {
    if (slot?.goesOn() === true) await slot.goOn(() => lane.completeAndTake(taken));
    else await lane.complete(taken);
  }

  async function again(
    { lane, taken, ...stored }: HeldJob,
    failure: Failure,
    startedAt: number,
    at: number,
  ): Promise<void> {
    const ledger = withAttempt(stored.ledger, attemptRecord(startedAt, now(), failure));
    await lane.delay(taken, storedJobData({ ...stored, ledger }), at);
  }

  async function dead(
    held: HeldJob,
    reason: FailureCode,
    failure: Failure,
    startedAt: number,
    signal: AbortSignal,
  ): Promise<void> {
    const verdict = { reason, diedAt: iso(now()), ...(failure.detail === undefined ? {} : { detail: failure.detail }) };
    const ledger = { ...withAttempt(held.ledger, attemptRecord(startedAt, now(), failure)), verdict };
    await held.lane.update(held.taken, storedJobData({ ...held, ledger }));
    await bury({ ...held, ledger }, verdict, signal);
  }

  async function bury(held: HeldJob, verdict: NonNullable<Ledger['verdict']>, signal: AbortSignal): Promise<void> {
    const { job, ledger, lane, taken } = held;
    // What lies at the key is what the media died of.
    const found = verdict.reason === 'object-conflict' ? succeed(undefined) : await recover(job, signal);
    if (!found.ok) return postpone(held, found.failure);
    // Stored by an attempt that died before it could say so, and gone at WeChat since.
    if (found.value !== undefined) return archived(held, found.value, now(), signal);

    const letter = letterOf(job, ledger, verdict, mediaTtlMs);
    const unburied = await deadLetters.bury(mediaJobId(job), deadLetterKey(job), letter, signal);
    if (unburied !== undefined) return postpone(held, unburied);
    await lane.fail(taken, verdict.reason);
    const { appId, mediaId } = job;
    const last = ledger.attempts.at(-1);
    observe({
      type: 'dead',
      appId,
      mediaId,
      reason: verdict.reason,
      failure: { code: last?.failure ?? verdict.reason, ...factsOf(letter) },
      ...(last === undefined ? {} : { durationMs: last.durationMs }),
      attempt: ledger.attempts.length,
    });
  }

  async function buryInvalid(
    lane: Lane,
    taken: TakenJob,
    letter: DeadLetter,
    key: string,
    signal: AbortSignal,
  ): Promise<void> {
    const unburied = await deadLetters.bury(invalidJobId(taken.id), key, letter, signal);
    if (unburied !== undefined) return postpone({ lane, taken }, unburied);
    await lane.fail(taken, letter.reason);
    const { appId, mediaId } = letter;
    observe({
      type: 'dead',
      appId,
      mediaId,
      reason: 'job-invalid',
      failure: { code: 'job-invalid', ...factsOf(letter) },
      attempt: 0,
    });
  }

  async function postpone(
    { lane, taken }: Pick<HeldJob, 'lane' | 'taken'>,
    failure: Failure,
    at = now() + POSTPONE_MS,
  ): Promise<void> {
    await lane.delay(taken, undefined, at);
    observe({ type: 'postponed', jobId: taken.id, failure });
  }

  return {
    archived,
    known,
    erased,
    forget,
    again,
    dead,
    bury,
    buryInvalid,
    postpone,
    moved: (lane, taken) => lane.complete(taken),
    release: (lane, taken) => lane.delay(taken, undefined, now()),
  };
}

/** Builds the letter from the ledger alone, so that doing it again gives the same letter. */
export function letterOf(
  job: MediaJob,
  { attempts, attemptsOmitted }: Ledger,
  verdict: NonNullable<Ledger['verdict']>,
  mediaTtlMs: number,
): DeadLetter {
  const last = attempts.at(-1);
  const { errcode, errmsg, rid } = last ?? {};
  return {
    v: 1,
    appId: job.appId,
    mediaId: job.mediaId,
    job,
    reason: verdict.reason,
    ...(errcode === undefined ? {} : { errcode }),
    ...(errmsg === undefined ? {} : { errmsg }),
    ...(rid === undefined ? {} : { rid }),
    ...(verdict.detail === undefined ? {} : { detail: verdict.detail }),
    firstAttemptAt: attempts[0]?.at ?? null,
    diedAt: verdict.diedAt,
    deadline: iso(deadlineOf(job, mediaTtlMs)),
    attempts: [...attempts],
    ...(attemptsOmitted === undefined ? {} : { attemptsOmitted }),
    status: 'open',
    replays: [],
  };
}

function factsOf({ errcode, errmsg, rid, detail }: DeadLetter): Omit<Failure, 'code'> {
  return {
    ...(errcode === undefined ? {} : { errcode }),
    ...(errmsg === undefined ? {} : { errmsg }),
    ...(rid === undefined ? {} : { rid }),
    ...(detail === undefined ? {} : { detail }),
  };
}
