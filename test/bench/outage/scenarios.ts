import type { FailureCode } from '../../../src/failure.ts';
import { nextMidnightInBeijing } from '../../../src/queue/gate-rules.ts';
import { DAY, HOUR, MINUTE, type Random, SECOND } from '../../../src/time.ts';
import { type Answer, MEDIA_LIFE_MS, type Scenario, type SimulatedJob, type World } from './simulate.ts';

/** 2026-11-02, 10:00 in Beijing. */
const START = Date.UTC(2026, 10, 2, 2);
const OUTAGE_AT = START + 6 * HOUR;

/** How long an attempt takes that ends so. */
const ARCHIVED_MS = 500;
const REFUSED_MS = 100;
const UNREACHABLE_MS = 5 * SECOND;
const STORE_DOWN_MS = 3 * SECOND;

export interface Sizes {
  /** Media of an ordinary scenario, arriving over one day. */
  readonly media: number;
  readonly backlog: number;
  readonly dailyQuota: number;
  readonly behind: number;
  readonly backfill: number;
  readonly slots: number;
}

export const FULL: Sizes = {
  media: 20_000,
  backlog: 500_000,
  dailyQuota: 200_000,
  behind: 1_000_000,
  backfill: 20_000,
  slots: 64,
};

interface Fault {
  /** Returns what an attempt fails of now, or `undefined`. */
  readonly at: (app: number, now: number, random: Random) => FailureCode | undefined;
  readonly tookMs: number;
}

function during(from: number, lastsMs: number, code: FailureCode, tookMs: number, app?: number): Fault {
  const until = from + lastsMs;
  const hit = (of: number, now: number): boolean => now >= from && now < until && (app === undefined || app === of);
  return { at: (of, now) => (hit(of, now) ? code : undefined), tookMs };
}

/** A world in which expired media are unknown, and one thing is wrong. */
function worldWith(fault: Fault, random: Random): World {
  return {
    attempt: ({ app, deadline }, now): Answer => {
      const failure = fault.at(app, now, random);
      if (failure !== undefined) return { result: failure, tookMs: fault.tookMs };
      if (now >= deadline) return { result: 'invalid-media-id', tookMs: REFUSED_MS };
      return { result: 'archived', tookMs: ARCHIVED_MS };
    },
    serves: (app, now) => fault.at(app, now, () => 1) === undefined,
  };
}

/** A world that serves each app so many times a day, from midnight in Beijing. */
function worldWithQuota(dailyQuota: number): World {
  const used = new Map<number, { midnight: number; calls: number }>();
  const usedBy = (app: number, now: number): { midnight: number; calls: number } => {
    const midnight = nextMidnightInBeijing(now);
    const known = used.get(app);
    if (known?.midnight === midnight) return known;
    const fresh = { midnight, calls: 0 };
    used.set(app, fresh);
    return fresh;
  };
  return {
    attempt: ({ app, deadline }, now): Answer => {
      const today = usedBy(app, now);
      if (today.calls >= dailyQuota) return { result: 'quota-exhausted', tookMs: REFUSED_MS };
      today.calls += 1;
      return now >= deadline
        ? { result: 'invalid-media-id', tookMs: REFUSED_MS }
        : { result: 'archived', tookMs: ARCHIVED_MS };
    },
    serves: (app, now) => usedBy(app, now).calls < dailyQuota,
  };
}

function arrivals(count: number, apps: number): SimulatedJob[] {
  return Array.from({ length: count }, (_, index) => {
    const enqueuedAt = START + Math.floor((index * DAY) / count);
    return { app: index % apps, enqueuedAt, deadline: enqueuedAt + MEDIA_LIFE_MS, failures: [] };
  });
}

/** Builds a scenario anew, since running it uses it up. */
export type ScenarioFactory = (sizes: Sizes, random: Random) => Scenario;

function ordinary(name: string, fault: Fault): ScenarioFactory {
  return ({ media, slots }, random) => ({
    name,
    jobs: arrivals(media, 3),
    apps: 3,
    slots,
    world: worldWith(fault, random),
  });
}

function outage(name: string, lastsMs: number): ScenarioFactory {
  return ordinary(`API down ${name}`, during(OUTAGE_AT, lastsMs, 'weixin-unreachable', UNREACHABLE_MS));
}

export const SCENARIOS: readonly ScenarioFactory[] = [
  outage('10 min', 10 * MINUTE),
  outage('6 h', 6 * HOUR),
  outage('48 h', 48 * HOUR),
  outage('71 h', 71 * HOUR),
  ordinary('20 % of calls -1 for a day', {
    at: (_app, now, random) => (now < START + DAY && random() < 0.2 ? 'weixin-busy' : undefined),
    tookMs: REFUSED_MS,
  }),
  ({ backlog, dailyQuota, slots }) => ({
    name: 'daily quota, a backlog on three apps',
    // Of the last day, at once; four fifths of them of one app.
    jobs: Array.from({ length: backlog }, (_, index) => ({
      app: index % 10 < 8 ? 0 : 1 + (index % 2),
      enqueuedAt: START,
      deadline: START + MEDIA_LIFE_MS - Math.floor(((backlog - index) * DAY) / backlog),
      failures: [],
    })),
    apps: 3,
    slots,
    world: worldWithQuota(dailyQuota),
  }),
  ordinary('wrong secret of one app for 40 h', during(OUTAGE_AT, 40 * HOUR, 'app-secret-invalid', REFUSED_MS, 0)),
  ordinary(
    'wrong secret of one app for 71 h 57 min',
    during(OUTAGE_AT, 71 * HOUR + 57 * MINUTE, 'app-secret-invalid', REFUSED_MS, 0),
  ),
  ordinary(
    'quota of one app used up for 71 h 57 min',
    during(OUTAGE_AT, 71 * HOUR + 57 * MINUTE, 'quota-exhausted', REFUSED_MS, 0),
  ),
  ordinary('S3 down 12 h', during(OUTAGE_AT, 12 * HOUR, 'store-unreachable', STORE_DOWN_MS)),
  ({ behind, backfill, slots }, random) => ({
    name: 'backfill with 2 h left behind a backlog with 70 h left',
    jobs: Array.from({ length: behind + backfill }, (_, index) => {
      const late = index >= behind;
      const enqueuedAt = START + (late ? MINUTE : 0);
      return { app: 0, enqueuedAt, deadline: enqueuedAt + (late ? 2 : 70) * HOUR, failures: [] };
    }),
    apps: 1,
    slots,
    world: worldWith(during(0, 0, 'weixin-unreachable', 0), random),
  }),
];
