import type { RedisClient } from '../redis/connect.ts';
import type { RedisKeys } from '../redis/keys.ts';
import { type Clock, DAY } from '../time.ts';
import { type DeadLetterSummary, deadLetterSummarySchema } from './dead-letter.ts';

/** Longer than anybody can do something about a medium that lives three days; the bucket keeps letters for good. */
const KEEP_MS = 30 * DAY;
/** Old entries removed along with each new one, so that the index never grows without bound nor a call without end. */
const PRUNE_AT_ONCE = 20;
const PAGE = 500;

/** As long as somebody may hand a media in again: see the markers of what is archived. */
const DISCARDED_KEPT_PAST_DEADLINE_MS = DAY;

/** Which dead letters. Absent fields match all; times are Unix times in milliseconds of the death. */
export interface DeadLetterFilter {
  readonly appId?: string;
  readonly reason?: string;
  readonly errcode?: number;
  readonly since?: number;
  readonly until?: number;
  readonly limit?: number;
  /** Only those listed behind this one, which itself may be gone by now. */
  readonly after?: Pick<DeadLetterSummary, 'jobId' | 'diedAt'>;
}

/**
 * The open dead letters, by time of death, in Redis.
 *
 * An index only: the bucket is the truth, and `dead-letters rebuild` makes this anew from it.
 */
export interface DeadLetterIndex {
  /** Adds or replaces. Harmless to repeat. */
  add(summary: DeadLetterSummary): Promise<void>;
  remove(jobId: string): Promise<void>;
  /**
   * Removes it and, in the same step, lets the door know until a day after `deadline` (ISO-8601) that the media is not
   * wanted. What has no deadline was no MediaJob, and may be handed in corrected. Harmless to repeat.
   */
  discard(jobId: string, deadline: string | null): Promise<void>;
  /** Removes the entry of this very death; one that has died again since stays. */
  removeDeath(summary: Pick<DeadLetterSummary, 'jobId' | 'diedAt'>): Promise<void>;
  get(jobId: string): Promise<DeadLetterSummary | undefined>;
  /** Tells, for each id, whether an open dead letter is there. */
  hasAny(jobIds: readonly string[]): Promise<boolean[]>;
  count(): Promise<number>;
  /**
   * Lists in the order of death, and of their ids where they died at the same time, a page of memory at a time. Throws the
   * reason of `signal` when it aborts between two pages.
   */
  list(filter: DeadLetterFilter, signal?: AbortSignal): AsyncIterable<DeadLetterSummary>;
}

export function createDeadLetterIndex(redis: RedisClient, keys: RedisKeys, now: Clock): DeadLetterIndex {
  const { deadByTime, deadRecords } = keys;

  async function add(summary: DeadLetterSummary): Promise<void> {
    await redis
      .multi()
      .hset(deadRecords, summary.jobId, JSON.stringify(summary))
      .zadd(deadByTime, Date.parse(summary.diedAt), summary.jobId)
      .exec();
    const old = await redis.zrange(deadByTime, '-inf', String(now() - KEEP_MS), 'BYSCORE', 'LIMIT', 0, PRUNE_AT_ONCE);
    if (old.length > 0)
      await redis
        .multi()
        .hdel(deadRecords, ...old)
        .zrem(deadByTime, ...old)
        .exec();
  }

  async function* list(
    { since, until, limit = Number.POSITIVE_INFINITY, after, ...wanted }: DeadLetterFilter,
    signal?: AbortSignal,
  ): AsyncIterable<DeadLetterSummary> {
    let left = limit;
    const start = after === undefined ? undefined : { at: Date.parse(after.diedAt), jobId: Buffer.from(after.jobId) };
    let from: number | string = Math.max(since ?? Number.NEGATIVE_INFINITY, start?.at ?? Number.NEGATIVE_INFINITY);
    if (from === Number.NEGATIVE_INFINITY) from = '-inf';
    /** Redis orders by bytes what has the same score. */
    const isBehind = ([jobId, score]: readonly [string, number]): boolean =>
      start === undefined || score > start.at || Buffer.compare(Buffer.from(jobId), start.jobId) > 0;
    /** Those of the last page that died in its last millisecond: the next page begins with that millisecond again. */
    let seen = new Set<string>();
    while (left > 0) {
      signal?.throwIfAborted();
      const page = await redis.zrange(
        deadByTime,
        String(from),
        String(until ?? '+inf'),
        'BYSCORE',
        'LIMIT',
        0,
        PAGE + seen.size,
        'WITHSCORES',
      );
      const rows = pairs(page).filter(([jobId]) => !seen.has(jobId));
      if (rows.length === 0) return;
      const wantedIds = rows.filter(isBehind).map(([jobId]) => jobId);
      const records = wantedIds.length === 0 ? [] : await redis.hmget(deadRecords, ...wantedIds);
      for (const record of records) {
        const summary = parseRecord(record);
        if (summary === undefined || !matches(summary, wanted)) continue;
        yield summary;
        left -= 1;
        if (left <= 0) return;
      }
      const last = rows.at(-1)?.[1] ?? 0;
      const sameInstant = rows.filter(([, score]) => score === last).map(([jobId]) => jobId);
      seen = from === last ? new Set([...seen, ...sameInstant]) : new Set(sameInstant);
      from = last;
    }
  }

  return {
    add,
    remove: async (jobId) => {
      await redis.multi().hdel(deadRecords, jobId).zrem(deadByTime, jobId).exec();
    },
    discard: async (jobId, deadline) => {
      const steps = redis.multi().hdel(deadRecords, jobId).zrem(deadByTime, jobId);
      const until = Date.parse(deadline ?? '') + DISCARDED_KEPT_PAST_DEADLINE_MS;
      if (!Number.isNaN(until)) steps.set(keys.discarded(jobId), '', 'PX', Math.max(DAY, until - now()));
      await steps.exec();
    },
    removeDeath: async ({ jobId, diedAt }) => {
      await redis.eval(REMOVE_DEATH, 2, deadByTime, deadRecords, jobId, Date.parse(diedAt));
    },
    get: async (jobId) => parseRecord(await redis.hget(deadRecords, jobId)),
    hasAny: async (jobIds) => {
      if (jobIds.length === 0) return [];
      const records = await redis.zmscore(deadByTime, ...jobIds);
      return records.map((score) => score !== null);
    },
    count: () => redis.zcard(deadByTime),
    list,
  };
}

const REMOVE_DEATH = `
if tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or 0) ~= tonumber(ARGV[2]) then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
return 1`;

function pairs(flat: readonly string[]): [jobId: string, score: number][] {
  const rows: [string, number][] = [];
  for (let index = 0; index + 1 < flat.length; index += 2) rows.push([flat[index] ?? '', Number(flat[index + 1])]);
  return rows;
}

function parseRecord(text: string | null | undefined): DeadLetterSummary | undefined {
  if (text === null || text === undefined) return undefined;
  try {
    return deadLetterSummarySchema.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined;
  }
}

function matches(
  summary: DeadLetterSummary,
  { appId, reason, errcode }: Pick<DeadLetterFilter, 'appId' | 'reason' | 'errcode'>,
): boolean {
  return (
    (appId === undefined || summary.appId === appId) &&
    (reason === undefined || summary.reason === reason) &&
    (errcode === undefined || summary.errcode === errcode)
  );
}
