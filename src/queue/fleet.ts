import { z } from 'zod';
import type { RedisClient } from '../redis/connect.ts';
import type { RedisKeys } from '../redis/keys.ts';
import { type Clock, SECOND } from '../time.ts';

/** One running worker, as `status` shows it. */
const workerSchema = z.object({
  id: z.string(),
  host: z.string(),
  pid: z.number(),
  version: z.string(),
  startedAt: z.string(),
  concurrency: z.number(),
  inFlight: z.number(),
});

export type FleetWorker = z.output<typeof workerSchema>;

/** A worker that has said nothing for so long counts as gone. */
const ALIVE_MS = 30 * SECOND;
export const HEARTBEAT_MS = 10 * SECOND;

/** The workers that are running. */
export interface Fleet {
  beat(worker: FleetWorker): Promise<void>;
  leave(workerId: string): Promise<void>;
  list(): Promise<FleetWorker[]>;
  /** Tells which apps this worker has credentials for. */
  serve(appIds: readonly string[]): Promise<void>;
  /** True while some worker has credentials for the app. */
  isServed(appId: string): Promise<boolean>;
}

export function createFleet(redis: RedisClient, keys: RedisKeys, now: Clock): Fleet {
  return {
    serve: async (appIds) => {
      if (appIds.length > 0) await redis.zadd(keys.served, ...appIds.flatMap((appId) => [now(), appId]));
    },
    isServed: async (appId) => {
      const lastSaid = await redis.zscore(keys.served, appId);
      return lastSaid !== null && now() - Number(lastSaid) < ALIVE_MS;
    },
    beat: async (worker) => {
      await redis
        .multi()
        .set(keys.worker(worker.id), JSON.stringify(worker), 'PX', ALIVE_MS)
        .sadd(keys.workers, worker.id)
        .exec();
    },
    leave: async (workerId) => {
      await redis.multi().del(keys.worker(workerId)).srem(keys.workers, workerId).exec();
    },
    list: async () => {
      const ids = await redis.smembers(keys.workers);
      if (ids.length === 0) return [];
      const texts = await redis.mget(ids.map((id) => keys.worker(id)));
      const gone = ids.filter((_, index) => texts[index] === null);
      if (gone.length > 0) await redis.srem(keys.workers, ...gone);
      return texts.flatMap((text) => (text === null ? [] : (parse(text) ?? [])));
    },
  };
}

function parse(text: string): FleetWorker | undefined {
  try {
    return workerSchema.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined;
  }
}
