import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ArchivedObject } from '../archive/archive-media.ts';
import { attemptRecord } from '../archive/attempt-record.ts';
import type { AttemptFacts } from '../archive/object-metadata.ts';
import type { DeadLetter } from '../dead-letter/dead-letter.ts';
import { type Failure, failure, type Result } from '../failure.ts';
import { deadlineOf } from '../media/deadline.ts';
import { type MediaJob, mediaJobId } from '../media/media-job.ts';
import { applyOpenIdPolicy, type OpenIdPolicy } from '../media/open-id.ts';
import { DEAD_LETTER_PREFIX, dayOf } from '../store/object-keys.ts';
import { type Clock, iso, MINUTE, type Random, SECOND } from '../time.ts';
import type { ArchivedMarkers } from './archived-marker.ts';
import type { Door } from './door.ts';
import { isGateReason, passedTheGate, runsBehindGate } from './gate-rules.ts';
import type { Gates } from './gates.ts';
import type { ObserveJob } from './job-events.ts';
import { appOfLane, type Lane, LockLostError, type TakenJob } from './lane.ts';
import { outcomeOfFailure } from './outcome.ts';
import { lastTryLead, nextTryAt } from './retry-schedule.ts';
import type { HeldJob, Settle, Slot } from './settle.ts';
import { MAX_ATTEMPTS, parseStoredJob, withAttempt } from './stored-job.ts';

/** The reason with which a worker that stops aborts its attempts. */
export class ShutdownError extends Error {
  override readonly name = 'ShutdownError';
}

export interface RunJobParts {
  /** One attempt. @throws the signal's reason when it aborts. */
  readonly attempt: (job: MediaJob, facts: AttemptFacts, signal: AbortSignal) => Promise<Result<ArchivedObject>>;
  readonly recover: (job: MediaJob, signal: AbortSignal) => Promise<Result<ArchivedObject | undefined>>;
  readonly settle: Settle;
  readonly markers: ArchivedMarkers;
  readonly gates: Gates;
  readonly door: Door;
  readonly openId: OpenIdPolicy;
  readonly mediaTtlMs: number;
  readonly now: Clock;
  readonly random: Random;
  readonly observe: ObserveJob;
}

/** After so many deaths of workers with a job, its next start is spaced like a failed attempt: it may be what kills them. */
const LOST_BEFORE_PAUSE = 3;

/** At once, and when the store must be done with what was broken off. */
const TAKE_BACK_PAUSES_MS = [0, 5 * SECOND];
const TAKE_BACK_TIMEOUT_MS = MINUTE;

/** The store is asked again at the pace of a media that has failed so often: about once a minute. */
const PACE_OF_RECOVERY = 5;

/** A payload that is no MediaJob is kept up to this length in its dead letter. */
const MAX_INVALID_PAYLOAD = 8 * 1024;
/** One that is nested deeper is kept as text: written out as JSON, each line of it would be as wide as it is deep. */
const MAX_INVALID_DEPTH = 32;

/**
 * Takes a job through one start, from what lay in Redis to a settled outcome.
 *
 * Never throws: what can't be settled is left to its lock, which expires and brings the job back.
 *
 * @param onlyIfDue true for a look at a closed gate: the job runs only if the gate may be probed or its time runs out.
 * @param slot may go on with another job as this one is done.
 * @returns false when the job was put back without an attempt because the gate is closed.
 */
export type RunJob = (
  lane: Lane,
  taken: TakenJob,
  onlyIfDue: boolean,
  signal: AbortSignal,
  slot?: Slot,
) => Promise<boolean>;

export function createRunJob(parts: RunJobParts): RunJob {
  const { attempt, recover, settle, markers, gates, door, openId, mediaTtlMs, now, random, observe } = parts;
  const leadMs = lastTryLead(mediaTtlMs);

  return async (lane, taken, onlyIfDue, signal, slot) => {
    const parsed = parseStoredJob(taken.data);
    try {
      if (!parsed.ok) {
        await buryInvalid(lane, taken, parsed.mistakes, parsed.payload, signal);
        return true;
      }
      if (appOfLane(lane.name) === undefined) {
        await moveToItsLane(lane, taken, parsed.stored.job, signal);
        return true;
      }
      if (onlyIfDue && !isDue(parsed.stored.job)) {
        await settle.release(lane, taken);
        return false;
      }
      // Not every job has come through our door.
      const job = applyOpenIdPolicy(parsed.stored.job, openId);
      await start({ ...parsed.stored, job, lane, taken, ...(slot === undefined ? {} : { slot }) }, signal);
      return true;
    } catch (error) {
      slot?.rest();
      await abandon(lane, taken, error, signal);
      if (error instanceof LockLostError && parsed.ok) await takeBack(parsed.stored.job);
      return true;
    }
  };

  /**
   * Whoever has the job now can't know of what we have written by then, or will have: a store may carry out a write that
   * was broken off. Where the media was erased meanwhile nobody would look for it any more.
   */
  async function takeBack(job: MediaJob): Promise<void> {
    const signal = AbortSignal.timeout(TAKE_BACK_TIMEOUT_MS);
    try {
      if (!(await markers.look(mediaJobId(job))).isErased) return;
      for (const pauseMs of TAKE_BACK_PAUSES_MS) {
        await sleep(pauseMs);
        const failed = await settle.forget(job, signal);
        if (failed !== undefined) observe({ type: 'postponed', jobId: mediaJobId(job), failure: failed });
      }
    } catch (error) {
      observe({ type: 'fault', where: 'take-back', error });
    }
  }

  /** True when a job may run although its app's gate is closed. */
  function isDue(job: MediaJob): boolean {
    const gate = gates.closed(job.appId);
    return gate === undefined || runsBehindGate(gate, now(), deadlineOf(job, mediaTtlMs), leadMs);
  }

  async function start(held: HeldJob, signal: AbortSignal): Promise<void> {
    const startedAt = now();
    const { key: known, isErased } = await markers.look(mediaJobId(held.job));
    if (isErased) return settle.erased(held, signal);
    if (held.ledger.verdict !== undefined) return settle.bury(held, held.ledger.verdict, signal);

    if (known !== undefined) return settle.known(held, known, signal);
    if (held.taken.starts - 1 > held.taken.returns) return startAfterLoss(held, startedAt, signal);
    return run(held, startedAt, signal);
  }

  /**
   * A worker died with this job: it may have stored the media, or left a part of it.
   *
   * BullMQ counts starts and returns for good, so a death is met at every later start; its record tells that it has been
   * seen to.
   */
  async function startAfterLoss(held: HeldJob, startedAt: number, signal: AbortSignal): Promise<void> {
    const losses = held.taken.starts - 1 - held.taken.returns;
    const seenTo = held.ledger.attempts.filter((record) => record.failure === 'worker-lost').length;
    if (losses <= seenTo) return run(held, startedAt, signal);

    const found = await recover(held.job, signal);
    if (!found.ok) {
      // Nobody has asked WeChat: that must not be what a media dies of, nor what its last minutes are spent on.
      const deadline = deadlineOf(held.job, mediaTtlMs);
      const at = nextTryAt({ now: now(), deadline, failedAttempts: PACE_OF_RECOVERY, leadMs, random });
      return settle.postpone(held, found.failure, at);
    }
    if (found.value !== undefined) return settle.archived(held, found.value, startedAt, signal);
    const lost = failure('worker-lost');
    const record = attemptRecord(startedAt, startedAt, lost);
    // Also those that nobody lived to write down, or one job would be held up for each of them.
    let { ledger } = held;
    for (let unseen = Math.min(losses - seenTo, MAX_ATTEMPTS); unseen > 1; unseen -= 1)
      ledger = withAttempt(ledger, record);
    // Past its deadline a pause would be the end: once it goes on, as a media that nobody has asked for yet.
    const isFirstPause = losses === LOST_BEFORE_PAUSE;
    const mustPause = losses % LOST_BEFORE_PAUSE === 0;
    if (mustPause && !(isFirstPause && startedAt >= deadlineOf(held.job, mediaTtlMs)))
      return settleFailure({ ...held, ledger }, lost, startedAt, signal);
    return run({ ...held, ledger: withAttempt(ledger, record) }, startedAt, signal);
  }

  async function run(held: HeldJob, startedAt: number, signal: AbortSignal): Promise<void> {
    const { job, ledger, taken } = held;
    const facts: AttemptFacts = {
      ...(isTime(taken.enqueuedAt) ? { enqueuedAt: taken.enqueuedAt } : {}),
      startedAt,
      attempt: ledger.attempts.length + (ledger.attemptsOmitted ?? 0) + 1,
      deadline: deadlineOf(job, mediaTtlMs),
    };
    const result = await attempt(job, facts, signal).catch((error: unknown): Result<never> => {
      signal.throwIfAborted();
      observe({ type: 'fault', where: 'attempt', error });
      return {
        ok: false,
        failure: failure('unclassified', { detail: error instanceof Error ? error.name : typeof error }),
      };
    });
    signal.throwIfAborted();
    if (result.ok) {
      await openGate(held.job.appId, startedAt);
      return settle.archived(held, result.value, startedAt, signal);
    }
    return settleFailure(held, result.failure, startedAt, signal);
  }

  async function settleFailure(held: HeldJob, cause: Failure, startedAt: number, signal: AbortSignal): Promise<void> {
    const { job, ledger } = held;
    const { appId } = job;
    const attempts = [...ledger.attempts, { failure: cause.code }];
    const outcome = outcomeOfFailure({
      failure: cause,
      attempts,
      now: now(),
      deadline: deadlineOf(job, mediaTtlMs),
      leadMs,
      random,
    });
    const facts = { job, failure: cause, durationMs: now() - startedAt, attempt: attempts.length };

    // Also when the media is given up for it: the next one would meet the same.
    if (isGateReason(cause.code)) {
      const { gate, wasOpen } = await gates.close(appId, cause.code, cause);
      if (wasOpen) observe({ type: 'gate-closed', gate });
    } else if (passedTheGate(cause.code)) {
      await openGate(appId, startedAt);
    } else {
      await putOffProbe(appId);
    }

    switch (outcome.outcome) {
      case 'wait':
        await settle.again(held, cause, startedAt, outcome.at);
        return observe({ type: 'wait', ...facts });
      case 'retry':
        await settle.again(held, cause, startedAt, outcome.at);
        return observe({ type: 'retry', ...facts, at: outcome.at });
      case 'dead':
        return settle.dead(held, outcome.reason, outcome.failure, startedAt, signal);
      default:
        outcome satisfies never;
    }
  }

  /** An attempt that began before the gate was closed tells nothing about it. */
  async function openGate(appId: string, startedAt: number): Promise<void> {
    const gate = gates.closed(appId);
    if (gate === undefined || startedAt < gate.closedAt) return;
    if (await gates.open(appId)) observe({ type: 'gate-opened', appId });
  }

  /** The probe told nothing about the reason of the gate. */
  async function putOffProbe(appId: string): Promise<void> {
    const gate = gates.closed(appId);
    if (gate !== undefined && now() >= gate.probeAt)
      await gates.close(appId, gate.reason, { ...gate, code: gate.reason });
  }

  /** For jobs that another program has put into the inbox: the same door as for everybody, then the copy goes. */
  async function moveToItsLane(lane: Lane, taken: TakenJob, job: MediaJob, signal: AbortSignal): Promise<void> {
    const { rejected } = await door.admit([job]);
    const [mistake] = rejected;
    if (mistake !== undefined) return buryInvalid(lane, taken, mistake.mistakes, job, signal);
    await settle.moved(lane, taken);
  }

  async function buryInvalid(
    lane: Lane,
    taken: TakenJob,
    mistakes: readonly string[],
    payload: unknown,
    signal: AbortSignal,
  ): Promise<void> {
    const letter: DeadLetter = {
      v: 1,
      appId: appOfLane(lane.name) ?? 'unknown',
      mediaId: taken.id,
      job: keptPayload(payload, taken.data),
      reason: 'job-invalid',
      detail: mistakes.join('; ').slice(0, 500),
      firstAttemptAt: null,
      diedAt: iso(now()),
      deadline: null,
      attempts: [],
      status: 'open',
      replays: [],
    };
    // The id may hold anything; its hash can't leave the prefix.
    const name = createHash('sha256').update(taken.id).digest('hex');
    const day = dayOf(iso(isTime(taken.enqueuedAt) ? taken.enqueuedAt : now()));
    await settle.buryInvalid(
      lane,
      taken,
      letter,
      `${DEAD_LETTER_PREFIX}app=${letter.appId}/dt=${day}/invalid-${name}.json`,
      signal,
    );
  }

  /** What to do with a job whose start was broken off. What lies in Redis is its state. */
  async function abandon(lane: Lane, taken: TakenJob, error: unknown, signal: AbortSignal): Promise<void> {
    if (error instanceof LockLostError) return observe({ type: 'released', jobId: taken.id, cause: 'lock-lost' });
    if (!(signal.aborted && signal.reason instanceof ShutdownError))
      return observe({ type: 'fault', where: 'settle', error });
    try {
      await settle.release(lane, taken);
      observe({ type: 'released', jobId: taken.id, cause: 'shutdown' });
    } catch (inner) {
      observe({ type: 'fault', where: 'release', error: inner });
    }
  }
}

/** A job of another program may have any number there. */
function isTime(timeMs: number): boolean {
  return timeMs > 0 && !Number.isNaN(new Date(timeMs).getTime());
}

/** Names under which other programs may have put an openId. */
const OPEN_ID_NAME = /^(open_?id|from_?user_?name)$/i;
/** The same in a text that is no JSON. */
const OPEN_ID_IN_TEXT = /(\b(?:open_?id|from_?user_?name)\b(?:\W|CDATA){1,20})[\w-]+/gi;

/**
 * An invalid payload as it is kept: bounded, and without an openId, since no policy could be applied to it.
 *
 * @param data the payload as it lay in Redis.
 */
function keptPayload(payload: unknown, data: string): unknown {
  const text =
    JSON.stringify(isNestedDeeper(MAX_INVALID_DEPTH, payload) ? data : payload, (name, value: unknown) => {
      if (OPEN_ID_NAME.test(name)) return '[removed]';
      return typeof value === 'string' ? value.replace(OPEN_ID_IN_TEXT, '$1[removed]') : value;
    }) ?? 'null';
  return text.length <= MAX_INVALID_PAYLOAD ? (JSON.parse(text) as unknown) : `${text.slice(0, MAX_INVALID_PAYLOAD)}…`;
}

function isNestedDeeper(levels: number, value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return levels === 0 || Object.values(value).some((inner) => isNestedDeeper(levels - 1, inner));
}
