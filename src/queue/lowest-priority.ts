import type { RedisClient } from '../redis/connect.ts';

/** Jobs looked at in one script. Measured on two busy cores: 1 to 2 ms, in which Redis serves nobody else. */
const PAGE = 500;
/**
 * The lowest priority in one page of the delayed (ZSCAN, which misses none that stays) or of the rescued (a list).
 * Returns where the next page begins, '0' at the end, and the priority, nil where no job has one.
 */
const LOWEST_OF_PAGE = `
local ids, step, next = {}, 1, '0'
if redis.call('TYPE', KEYS[1]).ok == 'list' then
  local first, count = tonumber(ARGV[1]), tonumber(ARGV[2])
  ids = redis.call('LRANGE', KEYS[1], first, first + count - 1)
  if #ids == count then next = tostring(first + count) end
else
  local page = redis.call('ZSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
  next, ids, step = page[1], page[2], 2
end
local lowest = false
for i = 1, #ids, step do
  local priority = tonumber(redis.call('HGET', ARGV[3] .. ids[i], 'priority') or 0) or 0
  if priority > 0 and (not lowest or priority < lowest) then lowest = priority end
end
return { next, lowest }
`;

/**
 * Returns the lowest priority among jobs that Redis keeps in another order; `undefined` when none has one. Between two
 * pages Redis serves others; jobs that move meanwhile may be missed.
 *
 * @param set key of a sorted set or a list of job ids.
 * @param jobPrefix what stands before an id in the key of its job.
 */
export async function lowestPriorityIn(
  redis: RedisClient,
  set: string,
  jobPrefix: string,
): Promise<number | undefined> {
  let lowest = Number.POSITIVE_INFINITY;
  let cursor = '0';
  do {
    const page = await redis.eval(LOWEST_OF_PAGE, 1, set, cursor, PAGE, jobPrefix);
    const [next, priority] = page as [string, number | null];
    lowest = Math.min(lowest, priority ?? lowest);
    cursor = next;
  } while (cursor !== '0');
  return Number.isFinite(lowest) ? lowest : undefined;
}
