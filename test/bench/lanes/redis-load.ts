import type { RedisClient } from '../../../src/redis/connect.ts';
import { SECOND } from '../../../src/time.ts';

/** What a redis-server has done over some time. */
export interface RedisLoad {
  readonly seconds: number;
  /** Those that scripts call included. */
  readonly commands: number;
  /** Of the CPU, in milliseconds. */
  readonly cpuMs: number;
}

/** Measures what the server does while `work` is done. */
export async function redisLoad(redis: RedisClient, work: () => Promise<unknown>): Promise<RedisLoad> {
  const before = await read(redis);
  const startedAt = performance.now();
  await work();
  const seconds = (performance.now() - startedAt) / SECOND;
  const after = await read(redis);
  return { seconds, commands: after.commands - before.commands, cpuMs: after.cpuMs - before.cpuMs };
}

async function read(redis: RedisClient): Promise<Omit<RedisLoad, 'seconds'>> {
  const text = `${await redis.info('stats')}${await redis.info('cpu')}`;
  const numberOf = (field: string): number => Number(new RegExp(`^${field}:(\\S+)`, 'm').exec(text)?.[1]);
  return {
    commands: numberOf('total_commands_processed'),
    cpuMs: SECOND * (numberOf('used_cpu_user') + numberOf('used_cpu_sys')),
  };
}
