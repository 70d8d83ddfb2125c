import type { RedisClient } from '../../../src/redis/connect.ts';
import { cpuTimeMs } from '../speed/cpu-time.ts';
import { enqueue, outboxEntries, untilEntries } from './backlog.ts';
import { openRig, type Surroundings } from './rig.ts';

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

interface Moment {
  readonly archived: number;
  readonly at: number;
  /** CPU time of the workers and of Redis so far, in milliseconds. */
  readonly cpuMs: number;
  readonly redisMs: number;
}

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
  const until = async (wanted: number): Promise<Moment> => ({
    archived: (await untilEntries(rig, accepted + wanted)) - accepted,
    at: performance.now(),
    cpuMs: workers.reduce((sum, { process: { pid } }) => sum + cpuTimeMs(pid ?? 0), 0),
    redisMs: cpuTimeMs(redisPid),
  });
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

async function memoryOf(redis: RedisClient): Promise<number> {
  return Number(/^used_memory:(\d+)/m.exec(await redis.info('memory'))?.[1]);
}
