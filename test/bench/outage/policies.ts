import type { FailureCode } from '../../../src/failure.ts';
import { nextProbeAt, passedTheGate, runsBehindGate } from '../../../src/queue/gate-rules.ts';
import { chooseLane, type LaneState } from '../../../src/queue/lane-choice.ts';
import { outcomeOfFailure } from '../../../src/queue/outcome.ts';
import { priorityOf } from '../../../src/queue/priority.ts';
import { lastTryLead } from '../../../src/queue/retry-schedule.ts';
import { between, HOUR, MINUTE, type Random, SECOND } from '../../../src/time.ts';
import { MinHeap } from './min-heap.ts';
import { MEDIA_LIFE_MS, type PolicyFactory, type SimulatedJob } from './simulate.ts';

/** How often somebody of the fleet looks behind a closed gate. */
const LOOK_MS = 15 * SECOND;
/** How often the clairvoyant asks the world. */
const CLAIRVOYANT_LOOK_MS = MINUTE;

interface SimulatedLane extends LaneState {
  readonly waiting: MinHeap<SimulatedJob>;
  gate: { readonly reason: Parameters<typeof nextProbeAt>[0]; readonly probeAt: number } | undefined;
  /** The job that runs although the gate is closed. */
  looker: SimulatedJob | undefined;
  lookAt: number;
}

/** The policy code of the worker itself, with lanes and gates in memory in place of Redis. */
export const ours: PolicyFactory = ({ apps }, random) => {
  const leadMs = lastTryLead(MEDIA_LIFE_MS);
  const lanes = Array.from({ length: apps }, (): SimulatedLane => {
    const state = { ready: false, nextAt: undefined, running: 0, lastTurn: 0 };
    return { ...state, waiting: new MinHeap(), gate: undefined, looker: undefined, lookAt: 0 };
  });
  let turn = 0;

  function start(lane: SimulatedLane): { job: SimulatedJob } | undefined {
    const job = lane.waiting.pop();
    if (job === undefined) return undefined;
    turn += 1;
    lane.lastTurn = turn;
    lane.running += 1;
    lane.ready = lane.waiting.size > 0;
    return { job };
  }

  /** The head of a lane comes after those of its bucket that have not been looked at. */
  function putBack(lane: SimulatedLane): undefined {
    const head = lane.waiting.pop();
    if (head !== undefined) lane.waiting.push(priorityOf(head.deadline), head);
    return undefined;
  }

  function end(job: SimulatedJob, now: number): SimulatedLane {
    const lane = lanes[job.app];
    if (lane === undefined) throw new Error(`no app ${job.app}`);
    lane.running -= 1;
    if (lane.looker === job) {
      lane.looker = undefined;
      lane.lookAt = now;
    }
    return lane;
  }

  return {
    ready: (job) => {
      const lane = lanes[job.app];
      lane?.waiting.push(priorityOf(job.deadline), job);
      if (lane !== undefined) lane.ready = true;
    },

    take: (now) => {
      const open = chooseLane(lanes, ({ gate }) => gate === undefined);
      const taken = open === undefined ? undefined : start(open);
      if (taken !== undefined) return taken;
      let askAgainAt = Number.POSITIVE_INFINITY;
      for (const lane of lanes) {
        const next = lane.waiting.peek();
        if (lane.gate === undefined || next === undefined || lane.looker !== undefined) continue;
        if (now >= lane.lookAt) {
          lane.lookAt = now + LOOK_MS;
          const looker = runsBehindGate(lane.gate, now, next.deadline, leadMs) ? start(lane) : putBack(lane);
          lane.looker = looker?.job;
          if (looker !== undefined) return looker;
        }
        askAgainAt = Math.min(askAgainAt, lane.lookAt);
      }
      return { askAgainAt };
    },

    archived: (job, now) => {
      end(job, now).gate = undefined;
    },

    failed: (job, failure, now) => {
      const lane = end(job, now);
      job.failures.push(recordOf(failure));
      const attempts = job.failures;
      const outcome = outcomeOfFailure({
        failure: { code: failure },
        attempts,
        now,
        deadline: job.deadline,
        leadMs,
        random,
      });
      if (outcome.outcome === 'wait') {
        lane.gate = { reason: outcome.reason, probeAt: nextProbeAt(outcome.reason, now, random) };
        return { retryAt: outcome.at };
      }
      const { gate } = lane;
      if (passedTheGate(failure)) lane.gate = undefined;
      else if (gate !== undefined && now >= gate.probeAt)
        lane.gate = { ...gate, probeAt: nextProbeAt(gate.reason, now, random) };
      return outcome.outcome === 'dead' ? 'dead' : { retryAt: outcome.at };
    },
  };
};

/** One record for each code: there are millions. */
const records = new Map<FailureCode, { readonly failure: FailureCode }>();

function recordOf(failure: FailureCode): { readonly failure: FailureCode } {
  const known = records.get(failure);
  if (known !== undefined) return known;
  const record = { failure };
  records.set(failure, record);
  return record;
}

/** Knows when the world serves, tries only then, the earliest deadline first: what it saves could have been saved. */
export const clairvoyant: PolicyFactory = ({ apps, world }) => {
  const waiting = Array.from({ length: apps }, () => new MinHeap<SimulatedJob>());
  return {
    ready: (job) => waiting[job.app]?.push(job.deadline, job),
    take: (now) => {
      let best: MinHeap<SimulatedJob> | undefined;
      for (const [app, jobs] of waiting.entries()) {
        while (jobs.leastKey <= now) jobs.pop();
        if (jobs.size > 0 && world.serves(app, now) && jobs.leastKey < (best?.leastKey ?? Number.POSITIVE_INFINITY))
          best = jobs;
      }
      const job = best?.pop();
      if (job !== undefined) return { job };
      return {
        askAgainAt: waiting.some(({ size }) => size > 0) ? now + CLAIRVOYANT_LOOK_MS : Number.POSITIVE_INFINITY,
      };
    },
    failed: (_job, _failure, now) => ({ retryAt: now }),
    archived: () => undefined,
  };
};

/** A policy of another program: first in, first out, no gates, and a pause for each failure until it gives up. */
export interface Peer {
  readonly name: string;
  /** The pause after so many failed attempts; `undefined` gives up. */
  readonly pauseMs: (failed: number, sinceEnqueuedMs: number, random: Random) => number | undefined;
}

export const PEERS: readonly Peer[] = [
  { name: '5 tries, exponential from 1 s', pauseMs: (failed) => (failed < 5 ? SECOND * 2 ** (failed - 1) : undefined) },
  {
    name: '8 tries in two minutes',
    pauseMs: (failed) => (failed < 8 ? SECOND * ([1, 2, 4, 8, 16, 30, 60][failed - 1] ?? 60) : undefined),
  },
  {
    // Sidekiq's spacing: https://github.com/sidekiq/sidekiq/wiki/Error-Handling
    name: '25 tries, as Sidekiq spaces them',
    pauseMs: (failed, _since, random) =>
      failed < 25 ? SECOND * (failed ** 4 + 15 + Math.floor(random() * 10) * (failed + 1)) : undefined,
  },
  {
    name: '10 tries at least, and 24 h',
    pauseMs: (failed, since, random) =>
      failed < 10 || since < 24 * HOUR
        ? between(SECOND, Math.min(HOUR / 2, 4 * SECOND * 2 ** Math.min(failed - 1, 20)), random)
        : undefined,
  },
];

export function peerPolicy({ pauseMs }: Peer): PolicyFactory {
  return (_scenario, random) => {
    const waiting = new MinHeap<SimulatedJob>();
    return {
      ready: (job) => waiting.push(0, job),
      take: () => {
        const job = waiting.pop();
        return job === undefined ? { askAgainAt: Number.POSITIVE_INFINITY } : { job };
      },
      failed: (job, failure, now) => {
        job.failures.push(recordOf(failure));
        if (failure === 'invalid-media-id') return 'dead';
        const pause = pauseMs(job.failures.length, now - job.enqueuedAt, random);
        return pause === undefined ? 'dead' : { retryAt: now + pause };
      },
      archived: () => undefined,
    };
  };
}
