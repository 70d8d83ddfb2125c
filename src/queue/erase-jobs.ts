import { setTimeout as sleep } from 'node:timers/promises';
import { isTheirs, type Wanted } from '../catalog/erase-wanted.ts';
import { deadLetterSummarySchema } from '../dead-letter/dead-letter.ts';
import { MEDIA_VARIANTS, mediaJobId, mediaJobSchema } from '../media/media-job.ts';
import type { RedisClient } from '../redis/connect.ts';
import type { RedisKeys } from '../redis/keys.ts';
import { releaseLease, takeLease } from '../redis/lease.ts';
import { scanKeys } from '../redis/scan.ts';
import { MINUTE } from '../time.ts';
import { INBOX_LANE, laneOf } from './lane.ts';

const PAGE = 500;
const LOOK_EVERY_MS = 250;
/** Longer than the removal of one letter from the list takes. */
const LEASE_MS = MINUTE;

/** A job that lies in Redis, whatever its state. */
export interface FoundJob {
  readonly lane: string;
  /** In its lane: of another program's job whatever that has chosen. */
  readonly id: string;
}

/** The ids under which media go: a media_id means each of its variants. */
export function* jobIdsOf({ appId, mediaIds }: Pick<Wanted, 'appId' | 'mediaIds'>): Iterable<string> {
  for (const mediaId of mediaIds) {
    yield mediaJobId({ appId, mediaId });
    for (const variant of MEDIA_VARIANTS) yield mediaJobId({ appId, mediaId, variant });
  }
}

/**
 * Finds the jobs of a person or of their media, in the lane of the app and in the inbox, where other programs may have
 * written whatever they like. Adds their media to `wanted`. Changes nothing.
 */
export async function findJobs(redis: RedisClient, { prefix }: RedisKeys, wanted: Wanted): Promise<FoundJob[]> {
  const found = new Map<string, FoundJob>();
  for (const lane of [laneOf(wanted.appId), INBOX_LANE]) {
    const base = `${prefix}:${lane}:`;
    for await (const page of scanKeys(redis, base)) {
      const pipeline = redis.pipeline();
      // What is no hash is no job.
      for (const key of page) pipeline.hget(key, 'data');
      const replies = (await pipeline.exec()) ?? [];
      for (const [index, key] of page.entries()) {
        const [error, data] = replies[index] ?? [null, null];
        if (error !== null && !error.message.startsWith('WRONGTYPE')) throw error;
        const id = key.slice(base.length);
        if (typeof data === 'string' && isWantedJob(id, data, wanted)) found.set(key, { lane, id });
      }
    }
  }
  return [...found.values()];
}

function isWantedJob(id: string, data: string, wanted: Wanted): boolean {
  const { appId, mediaIds } = wanted;
  let payload: unknown;
  try {
    payload = JSON.parse(data);
  } catch {
    return wanted.isIn(data) || wanted.isIn(id);
  }
  const { ledger: _, ...fields } = Object(payload) as Record<string, unknown>;
  const job = mediaJobSchema.safeParse(fields).data;
  if (job === undefined) return wanted.isIn(data) || wanted.isIn(id);
  if (job.appId !== appId) return false;
  if (isTheirs(wanted, { ...job.source, labels: job.labels })) mediaIds.add(job.mediaId);
  return mediaIds.has(job.mediaId);
}

/**
 * Removes jobs from their lanes, in whatever state but the active one. Returns those that a worker has just now.
 * Harmless to repeat.
 */
export async function removeJobs(
  redis: RedisClient,
  { prefix }: RedisKeys,
  jobs: readonly FoundJob[],
): Promise<{ readonly removed: number; readonly active: readonly FoundJob[] }> {
  const active: FoundJob[] = [];
  let removed = 0;
  for (const [lane, ofLane] of Map.groupBy(jobs, (job) => job.lane)) {
    const base = `${prefix}:${lane}:`;
    for (let start = 0; start < ofLane.length; start += PAGE) {
      const page = ofLane.slice(start, start + PAGE);
      const states = [...SORTED_SETS, ...LISTS];
      const arguments_ = [SORTED_SETS.length, ...states, ...page.map(({ id }) => id)];
      const kept = new Set((await redis.eval(REMOVE, 1, base, ...arguments_)) as string[]);
      active.push(...page.filter(({ id }) => kept.has(id)));
      removed += page.length - kept.size;
    }
  }
  return { removed, active };
}

/** BullMQ's states but `active`. @see https://docs.bullmq.io/guide/architecture */
const SORTED_SETS = ['prioritized', 'delayed', 'completed', 'failed', 'waiting-children'];
const LISTS = ['wait', 'paused'];

const REMOVE = `
local base, sets, kept = KEYS[1], tonumber(ARGV[1]), {}
local lists = ${LISTS.length}
for at = 2 + sets + lists, #ARGV do
  local id = ARGV[at]
  local key = base .. id
  if redis.call('LPOS', base .. 'active', id) then
    kept[#kept + 1] = id
  else
    for state = 2, 1 + sets do redis.call('ZREM', base .. ARGV[state], id) end
    for state = 2 + sets, 1 + sets + lists do redis.call('LREM', base .. ARGV[state], 0, id) end
    redis.call('SREM', base .. 'stalled', id)
    redis.call('DEL', key, key .. ':lock', key .. ':logs', key .. ':dependencies', key .. ':processed')
  end
end
return kept`;

/**
 * Removes the jobs of a person or of their media, and waits, for so long at most, for those that a worker has just now:
 * each ends soon, and what it leaves is erased with the rest.
 *
 * @returns how many were removed, and how many a worker still has.
 */
export async function eraseJobs(
  redis: RedisClient,
  keys: RedisKeys,
  wanted: Wanted,
  waitMs: number,
  signal: AbortSignal,
): Promise<{ readonly removed: number; readonly active: number }> {
  const giveUpAt = performance.now() + waitMs;
  let removed = 0;
  for (;;) {
    const found = await removeJobs(redis, keys, await findJobs(redis, keys, wanted));
    removed += found.removed;
    if (found.active.length === 0 || performance.now() > giveUpAt) return { removed, active: found.active.length };
    await sleep(LOOK_EVERY_MS, undefined, { signal });
  }
}

/** What Redis remembers of media beside their jobs. */
export interface ErasedMarkers {
  /** That they are archived, or discarded. */
  readonly markers: number;
  /** Entries of the list of dead letters. */
  readonly listed: number;
  /** Somebody replays or discards one just now. */
  readonly underWay: number;
}

/** Removes what Redis remembers of media. Harmless to repeat. @param dryRun counts only. */
export async function eraseMarkers(
  redis: RedisClient,
  keys: RedisKeys,
  wanted: Wanted,
  dryRun: boolean,
  waitMs: number,
  signal: AbortSignal,
): Promise<ErasedMarkers> {
  let markers = 0;
  let page: string[] = [];
  const remove = async (): Promise<void> => {
    if (page.length > 0) markers += dryRun ? await redis.exists(...page) : await redis.unlink(...page);
    page = [];
  };
  for (const jobId of jobIdsOf(wanted)) {
    page.push(keys.archived(jobId), keys.discarded(jobId));
    if (page.length >= 2 * PAGE) await remove();
  }
  await remove();

  let [listed, underWay] = [0, 0];
  for (const jobId of await listedOnes(redis, keys, wanted)) {
    const isGone = dryRun || (await unlist(redis, keys, jobId, waitMs, signal));
    listed += isGone ? 1 : 0;
    underWay += isGone ? 0 : 1;
  }
  if (!dryRun) await dropEvents(redis, keys, wanted);
  return { markers, listed, underWay };
}

async function listedOnes(redis: RedisClient, keys: RedisKeys, wanted: Wanted): Promise<string[]> {
  const found = new Set<string>();
  const ids = new Set(jobIdsOf(wanted));
  let cursor = '0';
  do {
    const [next, flat] = await redis.hscan(keys.deadRecords, cursor, 'COUNT', PAGE);
    cursor = next;
    for (let at = 0; at + 1 < flat.length; at += 2) {
      const [jobId = '', record = ''] = [flat[at], flat[at + 1]];
      const summary = summaryIn(record);
      const isOne = ids.has(jobId) || wanted.letterIds.has(jobId) || wanted.letterKeys.has(summary?.key ?? '');
      if (isOne || wanted.isIn(`${jobId}\n${record}`)) found.add(jobId);
    }
  } while (cursor !== '0');
  return [...found];
}

function summaryIn(record: string): { readonly key: string } | undefined {
  try {
    return deadLetterSummarySchema.safeParse(JSON.parse(record)).data;
  } catch {
    return undefined;
  }
}

/** Under the lease of whoever decides on a letter: a replay that is under way would write the letter anew. */
async function unlist(
  redis: RedisClient,
  keys: RedisKeys,
  jobId: string,
  waitMs: number,
  signal: AbortSignal,
): Promise<boolean> {
  const giveUpAt = performance.now() + waitMs;
  for (;;) {
    const lease = await takeLease(redis, keys.replay(jobId), LEASE_MS);
    if (lease !== undefined) {
      await redis.multi().hdel(keys.deadRecords, jobId).zrem(keys.deadByTime, jobId).exec();
      await releaseLease(redis, lease);
      return true;
    }
    if (performance.now() > giveUpAt) return false;
    await sleep(LOOK_EVERY_MS, undefined, { signal });
  }
}

/** BullMQ's streams of events serve nobody, and name the jobs last moved. */
async function dropEvents(redis: RedisClient, { prefix }: RedisKeys, { appId }: Wanted): Promise<void> {
  for (const lane of [laneOf(appId), INBOX_LANE]) {
    const events = `${prefix}:${lane}:events`;
    if ((await redis.type(events)) === 'stream') await redis.xtrim(events, 'MAXLEN', 0);
  }
}

/** Looks through everything that Redis holds under our prefix, as `grep` would. Returns the keys that name one. */
export async function grepRedis(redis: RedisClient, { prefix }: RedisKeys, wanted: Wanted): Promise<string[]> {
  const found = new Set<string>();
  for await (const page of scanKeys(redis, prefix)) {
    const pipeline = redis.pipeline();
    for (const key of page) pipeline.type(key);
    const types = (await pipeline.exec()) ?? [];
    for (const [index, key] of page.entries()) {
      if (wanted.isIn(key)) found.add(key);
      else if (await holds(redis, key, String(types[index]?.[1]), wanted)) found.add(key);
    }
  }
  return [...found];
}

async function holds(redis: RedisClient, key: string, type: string, wanted: Wanted): Promise<boolean> {
  switch (type) {
    case 'string':
      return wanted.isIn((await redis.get(key)) ?? '');
    case 'list': {
      for (let from = 0; ; from += PAGE) {
        const page = await redis.lrange(key, from, from + PAGE - 1);
        if (page.some(wanted.isIn)) return true;
        if (page.length < PAGE) return false;
      }
    }
    case 'stream': {
      for (let from = '-'; ; ) {
        const page = await redis.xrange(key, from, '+', 'COUNT', PAGE);
        if (page.some(([, fields]) => wanted.isIn(fields.join('\n')))) return true;
        const last = page.at(-1)?.[0];
        if (page.length < PAGE || last === undefined) return false;
        from = `(${last}`;
      }
    }
    case 'hash':
    case 'set':
    case 'zset': {
      let cursor = '0';
      do {
        const [next, page] =
          type === 'hash'
            ? await redis.hscan(key, cursor, 'COUNT', PAGE)
            : type === 'set'
              ? await redis.sscan(key, cursor, 'COUNT', PAGE)
              : await redis.zscan(key, cursor, 'COUNT', PAGE);
        if (page.some(wanted.isIn)) return true;
        cursor = next;
      } while (cursor !== '0');
      return false;
    }
    default:
      return false;
  }
}
