import type { FailureCode } from '../../../src/failure.ts';
import { DEFAULT_MEDIA_TTL_MS } from '../../../src/media/deadline.ts';
import type { Random } from '../../../src/time.ts';
import { MinHeap } from './min-heap.ts';

/** A media on its way through simulated time. All times are milliseconds of it. */
export interface SimulatedJob {
  readonly app: number;
  readonly enqueuedAt: number;
  /** When WeChat deletes the media. */
  readonly deadline: number;
  /** How its attempts have failed, oldest first. */
  readonly failures: { readonly failure: FailureCode }[];
}

/** What the world answers to an attempt, and how long the attempt takes. */
export interface Answer {
  readonly result: 'archived' | FailureCode;
  readonly tookMs: number;
}

/** WeChat and the store, as they are at a time. */
export interface World {
  /** One attempt; may count it. */
  attempt(job: SimulatedJob, now: number): Answer;
  /** Whether an attempt for this app could get through now, without counting one. For the clairvoyant policy. */
  serves(app: number, now: number): boolean;
}

export interface Scenario {
  readonly name: string;
  /** In the order of `enqueuedAt`. */
  readonly jobs: readonly SimulatedJob[];
  readonly world: World;
  readonly apps: number;
  /** Attempts at once, in the whole fleet. */
  readonly slots: number;
}

/** What to do after a failed attempt. */
export type Verdict = { readonly retryAt: number } | 'dead';

/** Which job runs next, and what becomes of one that has failed: everything the compared programs differ in. */
export interface Policy {
  /** The job is ready to run. */
  ready(job: SimulatedJob, now: number): void;
  /** Takes the job to run next, or says when to ask again (infinity: at the next event). */
  take(now: number): { readonly job: SimulatedJob } | { readonly job?: undefined; readonly askAgainAt: number };
  failed(job: SimulatedJob, failure: FailureCode, now: number): Verdict;
  archived(job: SimulatedJob, now: number): void;
}

export type PolicyFactory = (scenario: Scenario, random: Random) => Policy;

export interface Tally {
  readonly archived: number;
  readonly calls: number;
  /** Those that were archived. */
  readonly saved: ReadonlySet<SimulatedJob>;
}

/** A media lives as long as WeChat's temporary media do. */
export const MEDIA_LIFE_MS = DEFAULT_MEDIA_TTL_MS;

/** Runs a policy through a scenario, from event to event, until nothing is left to do. */
export function simulate(scenario: Scenario, createPolicy: PolicyFactory, random: Random): Tally {
  const { jobs, world, slots } = scenario;
  const policy = createPolicy(scenario, random);
  const delayed = new MinHeap<SimulatedJob>();
  const ends = new MinHeap<{ readonly job: SimulatedJob; readonly result: Answer['result'] }>();
  const saved = new Set<SimulatedJob>();
  let arrived = 0;
  let calls = 0;
  let askAgainAt = Number.POSITIVE_INFINITY;
  let now = Number.NEGATIVE_INFINITY;

  for (;;) {
    const arrival = jobs[arrived]?.enqueuedAt ?? Number.POSITIVE_INFINITY;
    const asking = ends.size < slots ? askAgainAt : Number.POSITIVE_INFINITY;
    const next = Math.min(arrival, delayed.leastKey, ends.leastKey, asking);
    if (next === Number.POSITIVE_INFINITY) return { archived: saved.size, calls, saved };
    now = Math.max(now, next);

    for (let job = jobs[arrived]; job !== undefined && job.enqueuedAt <= now; job = jobs[arrived]) {
      policy.ready(job, now);
      arrived += 1;
    }
    while (delayed.leastKey <= now) {
      const job = delayed.pop();
      if (job !== undefined) policy.ready(job, now);
    }
    while (ends.leastKey <= now) {
      const ended = ends.pop();
      if (ended !== undefined) settle(ended.job, ended.result);
    }
    askAgainAt = Number.POSITIVE_INFINITY;
    while (ends.size < slots) {
      const taken = policy.take(now);
      if (taken.job === undefined) {
        askAgainAt = taken.askAgainAt;
        break;
      }
      const { result, tookMs } = world.attempt(taken.job, now);
      calls += 1;
      ends.push(now + tookMs, { job: taken.job, result });
    }
  }

  function settle(job: SimulatedJob, result: Answer['result']): void {
    if (result === 'archived') {
      saved.add(job);
      policy.archived(job, now);
      return;
    }
    const verdict = policy.failed(job, result, now);
    if (verdict !== 'dead') delayed.push(verdict.retryAt, job);
  }
}
