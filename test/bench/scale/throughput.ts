import { setTimeout as sleep } from 'node:timers/promises';
import type { MediaJob } from '../../../src/media/media-job.ts';
import type { RedisClient } from '../../../src/redis/connect.ts';
import { cpuTimeMs } from '../speed/cpu-time.ts';
import { WORKLOADS } from '../speed/samples.ts';
import { openRig, type Rig, type Surroundings } from './rig.ts';

export interface Setting {
  /** How many jobs wait before the workers begin. */
  readonly backlog: number;
  readonly apps: number;
  readonly processes: number;
}

export interface Run extends Setting {
  readonly archived: number;
  readonly archivedPerSecond: number;
  readonly workerCpuMsPerJob: number;
  readonly redisCpuMsPerJob: number;
  readonly redisBytesPerJob: number;
}

/** Jobs in one call of the door. */
const BATCH = 1_000;
const SMALL = WORKLOADS[0]?.samples[0]?.name ?? '';

/**
 * Lets workers run on a backlog, first until they are warm, then for as long as it is timed.
 *
 * @param jobs that are archived at most.
 */
export async function measureThroughput(surroundings: Surroundings, setting: Setting, jobs: number): Promise<Run> {
  const { backlog, apps, processes } = setting;
  await using rig = await openRig(surroundings, apps);
  const { redis, redisPid } = rig;
  const before = await memoryOf(redis);
  await enqueue(rig, backlog);
  const redisBytesPerJob = ((await memoryOf(redis)) - before) / backlog;
  const accepted = await outboxEntries(rig);
  const workers = Array.from({ length: processes }, () => rig.startWorker());
  const look = async (): Promise<{ at: number; archived: number; cpuMs: number; redisMs: number }> => ({
    archived: (await outboxEntries(rig)) - accepted,
    at: performance.now(),
    cpuMs: workers.reduce((sum, { process: { pid } }) => sum + cpuTimeMs(pid ?? 0), 0),
    redisMs: cpuTimeMs(redisPid),
  });
  const until = async (wanted: number): Promise<Awaited<ReturnType<typeof look>>> => {
    for (;;) {
      const seen = await look();
      if (seen.archived >= wanted) return seen;
      await sleep(10);
    }
  };
  const timed = Math.min(jobs, backlog);
  // The first are for the compiler, and for tokens.
  const start = await until(Math.floor(timed / 4));
  const end = await until(timed);
  const archived = end.archived - start.archived;
  return {
    ...setting,
    archived,
    archivedPerSecond: (archived / (end.at - start.at)) * 1_000,
    workerCpuMsPerJob: (end.cpuMs - start.cpuMs) / archived,
    redisCpuMsPerJob: (end.redisMs - start.redisMs) / archived,
    redisBytesPerJob,
  };
}

async function enqueue({ queue, appIds, newMediaId }: Rig, count: number): Promise<void> {
  const receivedAt = new Date().toISOString();
  for (let from = 0; from < count; from += BATCH) {
    const batch = Array.from({ length: Math.min(BATCH, count - from) }, (_, index): MediaJob => {
      return { v: 1, appId: appIds[index % appIds.length] ?? '', mediaId: newMediaId(SMALL), receivedAt };
    });
    const { accepted } = await queue.door.admit(batch);
    if (accepted !== batch.length) throw new Error('not all jobs are new');
  }
}

/** Entries that were ever added to the outbox: while workers run and nobody hands in, each is an archived media. */
async function outboxEntries({ redis, queue }: Rig): Promise<number> {
  const facts = (await redis.xinfo('STREAM', queue.keys.outbox)) as unknown[];
  return Number(facts[facts.indexOf('entries-added') + 1]);
}

async function memoryOf(redis: RedisClient): Promise<number> {
  return Number(/^used_memory:(\d+)/m.exec(await redis.info('memory'))?.[1]);
}
