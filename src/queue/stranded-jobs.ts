import type { RedisClient } from '../redis/connect.ts';

/**
 * The states of BullMQ in which a job may be: sorted sets, and lists.
 *
 * @see https://docs.bullmq.io/guide/architecture
 */
const SORTED_SETS = ['prioritized', 'delayed', 'completed', 'failed', 'waiting-children'];
const LISTS = ['active', 'wait', 'paused'];

const DROP_STRANDED = `
local base, sets, dropped = KEYS[1], tonumber(ARGV[1]), {}
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
  if redis.call('TYPE', key).ok == 'hash' and redis.call('EXISTS', key .. ':lock') == 0
    and not isSomewhere(id, 3, 2 + sets, 'ZSCORE') and not isSomewhere(id, 3 + sets, 2 + sets + lists, 'LPOS') then
    redis.call('DEL', key)
    dropped[#dropped + 1] = id
  end
end
return dropped`;

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
export async function dropStrandedJobs(redis: RedisClient, base: string, ids: readonly string[]): Promise<string[]> {
  if (ids.length === 0) return [];
  const states = [...SORTED_SETS, ...LISTS];
  const dropped = await redis.eval(DROP_STRANDED, 1, base, SORTED_SETS.length, LISTS.length, ...states, ...ids);
  return dropped as string[];
}
