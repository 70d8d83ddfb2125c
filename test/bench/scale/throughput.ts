import { cpuTimeMs } from '../speed/cpu-time.ts';
import { usedMemory } from '../used-memory.ts';
import { enqueue, outboxEntries, untilEntries, untilIdle } from './backlog.ts';
import { openRig, type Surroundings } from './rig.ts';

export interface Setting {
  /** How many jobs wait before the warm workers begin. */
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

/** Jobs of each worker for the compiler, and for tokens. */
const WARM_UP = 4_000;

interface Moment {
  readonly at: number;
  /** CPU time of the workers and of Redis so far, in milliseconds. */
  readonly cpuMs: number;
  readonly redisMs: number;
}

/**
 * Lets workers run until they are warm; then on a backlog, which is handed in while they are stopped.
 *
 * @param jobs that are archived at most.
 */
export async function measureThroughput(surroundings: Surroundings, setting: Setting, jobs: number): Promise<Run> {
  const { backlog, apps, processes } = setting;
  await using rig = await openRig(surroundings, apps);
  const { redis, redisPid } = rig;
  await enqueue(rig, WARM_UP * processes);
  const cold = await outboxEntries(rig);
  const workers = Array.from({ length: processes }, () => rig.startWorker().process);
  await untilEntries(rig, cold + WARM_UP * processes);
  await untilIdle(rig);
  for (const worker of workers) worker.kill('SIGSTOP');
  const before = await usedMemory(redis);
  await enqueue(rig, backlog);
  const redisBytesPerJob = ((await usedMemory(redis)) - before) / backlog;
  const accepted = await outboxEntries(rig);
  const now = (): Moment => ({
    at: performance.now(),
    cpuMs: workers.reduce((sum, { pid }) => sum + cpuTimeMs(pid ?? 0), 0),
    redisMs: cpuTimeMs(redisPid),
  });
  const start = now();
  for (const worker of workers) worker.kill('SIGCONT');
  const archived = (await untilEntries(rig, accepted + Math.min(jobs, backlog))) - accepted;
  const end = now();
  return {
    ...setting,
    archived,
    archivedPerSecond: (archived / (end.at - start.at)) * 1_000,
    workerCpuMsPerJob: (end.cpuMs - start.cpuMs) / archived,
    redisCpuMsPerJob: (end.redisMs - start.redisMs) / archived,
    redisBytesPerJob,
  };
}
