import type { RedisClient } from '../redis/connect.ts';

/**
 * The states of BullMQ in which a job may be: sorted sets, and lists.
 *
 * @see https://docs.bullmq.io/guide/architecture
 */
const SORTED_SETS = ['prioritized', 'delayed', 'completed', 'failed', 'waiting-children'];
const LISTS = ['active', 'wait', 'paused'];

/** @param stranded what to do with a job that is in no state. @param other with one that is in some. */
const script = (stranded: string, other: string): string => `
local base, sets, told = KEYS[1], tonumber(ARGV[1]), {}
local function isSomewhere(id, from, to, command)
  for at = from, to do
    if redis.call(command, base .. ARGV[at], id) then return true end
  end
  return false
end
local lists = tonumber(ARGV[2])
for at = 3 + sets + lists, #ARGV do
  local id = ARGV[at]
  local key = base .. id
  if redis.call('TYPE', key).ok == 'hash' then
    if redis.call('EXISTS', key .. ':lock') == 0
      and not isSomewhere(id, 3, 2 + sets, 'ZSCORE') and not isSomewhere(id, 3 + sets, 2 + sets + lists, 'LPOS') then
      ${stranded}
    else
      ${other}
    end
  end
end
return told`;

const TELL = 'told[#told + 1] = id';
const DROP_STRANDED = script(`redis.call('DEL', key) ${TELL}`, '');
const TELL_HELD = script('', TELL);

/**
 * Removes jobs that are in no state of their lane, and returns their ids.
 *
 * BullMQ's script that adds a job writes its hash first. Where a later step is refused (by the rights of the Redis user, or
 * by a key that somebody has overwritten), the hash stays and the job waits nowhere; whoever adds it again is told that it is
 * there already. Every other move of a job is one script that ends in a state, but for one that breaks on a spoilt counter:
 * whoever has the job then sees that it is gone. Rejects where a state can't be read.
 *
 * @param base what stands before an id in the key of its job, and before the name of a state.
 */
export function dropStrandedJobs(redis: RedisClient, base: string, ids: readonly string[]): Promise<string[]> {
  return run(DROP_STRANDED, redis, base, ids);
}

/** Returns the ids of the jobs that are in some state of their lane, and changes nothing. @see dropStrandedJobs */
export function heldJobs(redis: RedisClient, base: string, ids: readonly string[]): Promise<string[]> {
  return run(TELL_HELD, redis, base, ids);
}

async function run(lua: string, redis: RedisClient, base: string, ids: readonly string[]): Promise<string[]> {
  if (ids.length === 0) return [];
  const states = [...SORTED_SETS, ...LISTS];
  return (await redis.eval(lua, 1, base, SORTED_SETS.length, LISTS.length, ...states, ...ids)) as string[];
}
