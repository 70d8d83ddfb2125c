import { setTimeout as sleep } from 'node:timers/promises';
import { newMediaId } from '../../../src/demo/weixin/weixin-simulator.ts';
import type { MediaJob } from '../../../src/media/media-job.ts';
import { iso, SECOND } from '../../../src/time.ts';
import { testJob } from '../../support/jobs.ts';
import type { Contender, Work } from './contender.ts';
import { type RedisLoad, redisLoad } from './redis-load.ts';

/** The app ids of a fleet with so many apps. */
export function appIds(count: number): string[] {
  return Array.from({ length: count }, (_, index) => `wx${index.toString(16).padStart(16, '0')}`);
}

export function jobsOf(appId: string, count: number): MediaJob[] {
  const receivedAt = iso(Date.now());
  return Array.from({ length: count }, () => testJob({ appId, mediaId: newMediaId(), receivedAt }));
}

export interface Throughput {
  readonly jobsPerSecond: number;
  readonly commandsPerJob: number;
  readonly redisCpuMsPerJob: number;
}

/** Runs jobs that do nothing, `jobs` in all, spread evenly over the apps, from the first take to the last end. */
export async function measureThroughput(
  contender: Contender,
  apps: readonly string[],
  jobs: number,
  concurrency: number,
): Promise<Throughput> {
  await contender.redis.flushall();
  const each = Math.ceil(jobs / apps.length);
  await contender.add(apps.flatMap((appId) => jobsOf(appId, each)));
  const all = Promise.withResolvers<void>();
  let left = each * apps.length;
  await using worker = new AsyncDisposableStack();
  // Without the end of the worker, which takes its time.
  const load = await redisLoad(contender.redis, async () => {
    const work: Work = async () => {
      left -= 1;
      if (left === 0) all.resolve();
      return true;
    };
    worker.use(await contender.start(apps, concurrency, work));
    await all.promise;
  });
  const done = each * apps.length;
  return {
    jobsPerSecond: done / load.seconds,
    commandsPerJob: load.commands / done,
    redisCpuMsPerJob: load.cpuMs / done,
  };
}

/** What a worker that has nothing to do costs Redis, over `seconds`. */
export async function measureIdle(contender: Contender, apps: readonly string[], seconds: number): Promise<RedisLoad> {
  await contender.redis.flushall();
  await using _worker = await contender.start(apps, 1, async () => true);
  // Until it has looked into every lane once.
  await sleep(SECOND);
  return await redisLoad(contender.redis, () => sleep(seconds * SECOND));
}

export interface Fairness {
  /** How long the jobs of the small tenant waited until they began, in milliseconds; shortest first. */
  readonly waitsMs: readonly number[];
  /** Jobs of the large tenant that began meanwhile. */
  readonly overtakenBy: number;
}

export interface FairnessOptions {
  /** Jobs that the large tenant has queued. */
  readonly backlog: number;
  readonly concurrency: number;
  /** How long each job takes. */
  readonly jobMs: number;
  /** How often the small tenant comes, with ten jobs each time. */
  readonly rounds: number;
}

const LARGE = 'wx00000000000000aa';
const SMALL = 'wx00000000000000bb';
const SMALL_JOBS = 10;

/** A tenant with a large backlog that is worked on, and one that comes with ten jobs after it. */
export async function measureFairness(contender: Contender, options: FairnessOptions): Promise<Fairness> {
  const { backlog, concurrency, jobMs, rounds } = options;
  await contender.redis.flushall();
  await contender.add(jobsOf(LARGE, backlog));
  const waitsMs: number[] = [];
  let large = 0;
  let addedAt = 0;
  let round = Promise.withResolvers<void>();
  const warm = Promise.withResolvers<void>();
  await using _worker = await contender.start([LARGE, SMALL], concurrency, async ({ appId }) => {
    if (appId === LARGE) {
      large += 1;
      if (large === concurrency * WARM_TURNS) warm.resolve();
    } else {
      waitsMs.push(performance.now() - addedAt);
      if (waitsMs.length % SMALL_JOBS === 0) round.resolve();
    }
    await sleep(jobMs);
    return true;
  });
  await warm.promise;
  let overtakenBy = 0;
  for (let left = rounds; left > 0; left -= 1) {
    round = Promise.withResolvers<void>();
    addedAt = performance.now();
    const before = large;
    await contender.add(jobsOf(SMALL, SMALL_JOBS));
    await round.promise;
    overtakenBy = Math.max(overtakenBy, large - before);
    // So that the rounds come at all phases of what a worker does now and then.
    await sleep(ROUND_PAUSE_MS);
  }
  await contender.redis.flushall();
  return { waitsMs: waitsMs.toSorted((a, b) => a - b), overtakenBy };
}

const WARM_TURNS = 5;
const ROUND_PAUSE_MS = 700;

export interface GateCost extends RedisLoad {
  /** Jobs that were taken and put back. */
  readonly taken: number;
}

/** An app with a backlog whose gate is closed, over `seconds`, with nothing else to do. */
export async function measureGate(
  contender: Contender,
  backlog: number,
  concurrency: number,
  seconds: number,
): Promise<GateCost> {
  await contender.redis.flushall();
  await contender.add(jobsOf(LARGE, backlog));
  await contender.closeGate(LARGE);
  let taken = 0;
  await using _worker = await contender.start([LARGE, SMALL], concurrency, async () => {
    taken += 1;
    return false;
  });
  const load = await redisLoad(contender.redis, () => sleep(seconds * SECOND));
  return { ...load, taken };
}
