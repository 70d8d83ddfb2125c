import { createOutbox } from '../catalog/outbox.ts';
import { deadlineOf } from '../media/deadline.ts';
import { type MediaJob, mediaJobId, parseMediaJob } from '../media/media-job.ts';
import { applyOpenIdPolicy, type OpenIdPolicy } from '../media/open-id.ts';
import type { RedisClient } from '../redis/connect.ts';
import type { RedisKeys } from '../redis/keys.ts';
import { untilReplicated } from '../redis/replicated.ts';
import type { Clock } from '../time.ts';
import { type Lanes, laneOf } from './lane.ts';
import { priorityOf } from './priority.ts';

/** What became of the jobs that were handed in. */
export interface Admission {
  /** Durably queued. */
  readonly accepted: number;
  /** Known already: waiting, running, archived, erased, or a dead letter, open or discarded. Nothing was done. */
  readonly duplicates: number;
  /** Not a MediaJob v1, or of an unknown app. Nothing was done. */
  readonly rejected: readonly RejectedJob[];
}

export interface RejectedJob {
  /** The place in what was handed in, from 0. */
  readonly index: number;
  readonly mistakes: readonly string[];
}

/** What became of one job that was handed in. */
export type JobAdmission = 'accepted' | 'duplicate' | { readonly mistakes: readonly string[] };

/** The apps that jobs may belong to. */
export interface KnownApps {
  has(appId: string): boolean;
  /** Looks for more, where more may come: asked before a job of an unknown one is rejected. */
  refresh?(): Promise<unknown>;
}

export interface DoorOptions {
  readonly redis: RedisClient;
  readonly keys: RedisKeys;
  readonly lanes: Lanes;
  readonly mediaTtlMs: number;
  readonly openId: OpenIdPolicy;
  /** Apps that a job may belong to; `undefined` leaves that to the worker. */
  readonly apps?: KnownApps;
  /** How many replicas must hold the jobs before they count as accepted. Default 0. */
  readonly waitReplicas?: number;
  readonly now: Clock;
}

/** Where media enter. */
export interface Door {
  /**
   * Parses jobs and queues those that are new.
   *
   * Repeating a call is harmless, also after an error that leaves open whether it went through. Rejects when Redis does
   * not take the jobs, or too few replicas have them; some may be queued by then.
   *
   * @param signal ends it before the next 500 jobs: those before are queued, and the others are not.
   */
  admit(inputs: readonly unknown[], signal?: AbortSignal): Promise<Admission>;
  /**
   * The same, with an answer for each job, in their order.
   *
   * @throws PartlyAdmittedError when the lanes of some apps take nothing, or Redis does not tell whether there are such
   * apps, and those of others do.
   */
  admitEach(inputs: readonly unknown[], signal?: AbortSignal): Promise<readonly JobAdmission[]>;
}

/** Counts what became of each. */
export function admissionOf(each: readonly JobAdmission[]): Admission {
  return {
    accepted: each.filter((one) => one === 'accepted').length,
    duplicates: each.filter((one) => one === 'duplicate').length,
    rejected: each.flatMap((one, index) => (typeof one === 'string' ? [] : [{ index, ...one }])),
  };
}

/** Some apps' jobs were refused by Redis; `cause` is the first refusal. */
export class PartlyAdmittedError extends Error {
  override readonly name = 'PartlyAdmittedError';
  /** For each job, in their order; `undefined` for those that were refused. */
  readonly answers: readonly (JobAdmission | undefined)[];

  constructor(answers: readonly (JobAdmission | undefined)[], cause: unknown) {
    super('the jobs of some apps were refused', { cause });
    this.answers = answers;
  }
}

/** Jobs in one command to Redis. */
const BATCH = 500;

interface Candidate {
  readonly id: string;
  readonly job: MediaJob;
}

export function createDoor(options: DoorOptions): Door {
  const { redis, keys, lanes, mediaTtlMs, openId, apps, waitReplicas = 0, now } = options;
  /** Where it is noted what was accepted, so that it can be told what is missing when the queue is lost. */
  const outbox = createOutbox(redis, keys, now);
  async function admit(inputs: readonly unknown[], signal?: AbortSignal): Promise<Admission> {
    const each = await admitEach(inputs, signal).catch((error: unknown): never => {
      throw error instanceof PartlyAdmittedError ? error.cause : error;
    });
    return admissionOf(each);
  }

  async function admitEach(inputs: readonly unknown[], signal?: AbortSignal): Promise<readonly JobAdmission[]> {
    const candidates = new Map<string, Candidate>();
    const refused = new Map<string, unknown>();
    const jobs = inputs.map((input) => parseMediaJob(input, now()));
    const isUnknown = ({ appId }: MediaJob): boolean => apps !== undefined && !apps.has(appId);
    const refusal = jobs.some((one) => one.ok && isUnknown(one.job)) ? await refusalToLook() : undefined;
    const parsed = jobs.map((one): string | { readonly mistakes: readonly string[] } => {
      if (!one.ok) return { mistakes: one.mistakes };
      const { job } = one;
      const id = mediaJobId(job);
      if (isUnknown(job)) {
        if (refusal === undefined) return { mistakes: [`appId: ${job.appId} is not configured`] };
        refused.set(id, refusal);
        return id;
      }
      if (!candidates.has(id)) candidates.set(id, { id, job: applyOpenIdPolicy(job, openId) });
      return id;
    });
    const accepted = new Set<string>();
    const all = [...candidates.values()];
    for (let start = 0; start < all.length; start += BATCH) {
      signal?.throwIfAborted();
      const batch = all.slice(start, start + BATCH);
      const fresh = await unknownOnes(batch, refused);
      await enqueue(fresh, refused);
      for (const { id } of fresh) if (!refused.has(id)) accepted.add(id);
    }
    // Also for duplicates: whoever was first may not have waited.
    if (all.length > 0) await untilReplicated(redis, waitReplicas);
    // The first of each id is the one that was accepted.
    const answers = parsed.map((one): JobAdmission | undefined => {
      if (typeof one !== 'string') return one;
      if (refused.has(one)) return undefined;
      return accepted.delete(one) ? 'accepted' : 'duplicate';
    });
    const complete = answers.filter((answer) => answer !== undefined);
    if (complete.length === answers.length) return complete;
    throw new PartlyAdmittedError(answers, refused.values().next().value);
  }

  /** Looks for more apps. Returns what Redis has against it: those that are known are no worse for that. */
  async function refusalToLook(): Promise<unknown> {
    try {
      await apps?.refresh?.();
      return undefined;
    } catch (error) {
      if (isRefusal(error)) return error;
      throw error;
    }
  }

  /** Drops the media that are archived, dead, discarded, erased, or in their lane; and those of which Redis refuses to tell. */
  async function unknownOnes(batch: readonly Candidate[], refused: Map<string, unknown>): Promise<Candidate[]> {
    const pipeline = redis.pipeline();
    for (const { id, job } of batch) {
      pipeline.exists(
        keys.archived(id),
        keys.discarded(id),
        keys.erased(id),
        lanes.lane(laneOf(job.appId)).keyOfJob(id),
      );
      pipeline.zscore(keys.deadByTime, id);
    }
    const replies = await pipeline.exec();
    if (replies === null) throw new Error('Redis gave no answer to a pipeline');
    const values = replies.map(([error, value]) => {
      if (error !== null) throw error;
      return value;
    });
    const held = batch.filter((_, index) => Number(values[2 * index]) > 0);
    const stranded = await dropStranded(held, refused);
    return batch.filter(({ id }, index) => {
      const places = Number(values[2 * index]) - (stranded.has(id) ? 1 : 0);
      return places === 0 && values[2 * index + 1] === null && !refused.has(id);
    });
  }

  /** A job that an add which broke half-way has left is not in its lane, whatever it looks like. */
  async function dropStranded(held: readonly Candidate[], refused: Map<string, unknown>): Promise<ReadonlySet<string>> {
    const dropped = await Promise.all(
      [...Map.groupBy(held, ({ job }) => job.appId)].map(async ([appId, ofApp]) => {
        try {
          return await lanes.lane(laneOf(appId)).dropStranded(ofApp.map(({ id }) => id));
        } catch (error) {
          refuse(ofApp, error, refused);
          return [];
        }
      }),
    );
    return new Set(dropped.flat());
  }

  async function enqueue(batch: readonly Candidate[], refused: Map<string, unknown>): Promise<void> {
    for (const [appId, ofApp] of Map.groupBy(batch, ({ job }) => job.appId)) {
      const jobs = ofApp.map(({ id, job }) => ({ id, data: job, priority: priorityOf(deadlineOf(job, mediaTtlMs)) }));
      // Announced each time: a Redis that has lost its data has lost this too. In one round trip and in this order; all
      // have ended when it is told that one has failed.
      const steps = [
        redis.sadd(keys.lanes, appId),
        outbox.accepted(ofApp.map(({ job }) => job)),
        lanes.lane(laneOf(appId)).add(jobs),
      ];
      for (const step of await Promise.allSettled(steps)) {
        if (step.status === 'rejected') refuse(ofApp, step.reason, refused);
      }
    }
  }

  return { admit, admitEach };
}

/**
 * Notes that Redis refuses the jobs of an app: a lane that is spoilt is an error of its app alone.
 *
 * @throws anything else, as of a connection that broke: it concerns the jobs of all.
 */
function refuse(jobs: readonly Candidate[], error: unknown, refused: Map<string, unknown>): void {
  if (!isRefusal(error)) throw error;
  for (const { id } of jobs) refused.set(id, error);
}

function isRefusal(error: unknown): boolean {
  return error instanceof Error && error.name === 'ReplyError';
}
