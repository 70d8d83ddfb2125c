import type { RedisClient } from '../redis/connect.ts';
import type { RedisKeys } from '../redis/keys.ts';
import { type Clock, HOUR, MINUTE } from '../time.ts';

/** What is counted, by app and minute. */
export const COUNTED = ['archived', 'retry', 'wait', 'dead', 'bytes'] as const;
export type Counted = (typeof COUNTED)[number];

const KEEP_MS = 2 * HOUR;

/** Sums of the fleet over the last minutes. */
export type ThroughputByApp = ReadonlyMap<string, Readonly<Record<Counted, number>>>;

/** Counts what the fleet does, for `status`. Written in bulk; what a killed worker had not written yet is lost. */
export interface Throughput {
  count(appId: string, what: Counted, by: number): void;
  flush(): Promise<void>;
  /** Sums the last `minutes`, the current one included. */
  read(minutes: number): Promise<ThroughputByApp>;
}

export function createThroughput(redis: RedisClient, keys: RedisKeys, now: Clock): Throughput {
  let pending = new Map<string, number>();
  const minuteNow = (): number => Math.floor(now() / MINUTE);

  return {
    count: (appId, what, by) => {
      const field = `${minuteNow()} ${appId} ${what}`;
      pending.set(field, (pending.get(field) ?? 0) + by);
    },

    flush: async () => {
      if (pending.size === 0) return;
      const counts = pending;
      pending = new Map();
      const pipeline = redis.pipeline();
      for (const [field, by] of counts) {
        const [minute = '', appId = '', what = ''] = field.split(' ');
        const key = keys.throughput(Number(minute));
        pipeline.hincrby(key, `${appId} ${what}`, by);
        pipeline.pexpire(key, KEEP_MS);
      }
      await pipeline.exec();
    },

    read: async (minutes) => {
      const last = minuteNow();
      const pipeline = redis.pipeline();
      for (let minute = last - minutes + 1; minute <= last; minute += 1) pipeline.hgetall(keys.throughput(minute));
      const sums = new Map<string, Record<Counted, number>>();
      for (const [error, fields] of (await pipeline.exec()) ?? []) {
        if (error !== null) throw error;
        for (const [field, value] of Object.entries(fields as Record<string, string>)) {
          const [appId = '', what = ''] = field.split(' ');
          const sum = sums.get(appId) ?? { archived: 0, retry: 0, wait: 0, dead: 0, bytes: 0 };
          if (isCounted(what)) sum[what] += Number(value);
          sums.set(appId, sum);
        }
      }
      return sums;
    },
  };
}

function isCounted(what: string): what is Counted {
  return (COUNTED as readonly string[]).includes(what);
}
