import type { RedisClient } from '../redis/connect.ts';
import type { RedisKeys } from '../redis/keys.ts';
import { isTheirs, type Wanted } from './erase-wanted.ts';
import { type AnyRow, type Table, unpackRow } from './table.ts';
import { TABLES } from './tables.ts';

const PAGE = 1_000;
/** A stream that holds more is not written anew in one step: Redis would serve nobody meanwhile. */
const MAX_REWRITTEN = 20_000;

/**
 * Finds what the outbox says of a person, adds their media to `wanted`, and returns how many entries name one of those.
 * Changes nothing.
 */
export async function searchOutbox(redis: RedisClient, keys: RedisKeys, wanted: Wanted): Promise<number> {
  let count = 0;
  for (let from = '-'; ; ) {
    const page = await redis.xrange(keys.outbox, from, '+', 'COUNT', PAGE);
    for (const [, fields] of page) {
      learn(fields, wanted);
      count += wanted.isIn(fields.join('\n')) || rowsOf(fields).some((row) => isOf(row, wanted)) ? 1 : 0;
    }
    const last = page.at(-1)?.[0];
    if (page.length < PAGE || last === undefined) return count;
    from = `(${last}`;
  }
}

function learn(fields: readonly string[], wanted: Wanted): void {
  for (const row of rowsOf(fields)) {
    if (row['app_id'] !== wanted.appId || !isTheirs(wanted, { openId: row['open_id'], labels: row['labels'] }))
      continue;
    wanted.mediaIds.add(String(row['media_id']));
  }
}

function isOf(row: AnyRow, { appId, mediaIds }: Wanted): boolean {
  return row['app_id'] === appId && mediaIds.has(String(row['media_id']));
}

function rowsOf(fields: readonly string[]): AnyRow[] {
  const [name] = (fields[fields.indexOf('t') + 1] ?? '').split('/');
  const table: Table | undefined = Object.values(TABLES).find((known) => known.name === name);
  if (table === undefined) return [];
  try {
    const rows = JSON.parse(fields[fields.indexOf('r') + 1] ?? '') as unknown[];
    return rows.map((row) => unpackRow(table, row)).filter((row) => row !== undefined);
  } catch {
    return [];
  }
}

/**
 * Writes the outbox anew with the entries it has. Redis keeps what was removed from a stream until the whole node of some
 * 100 entries is, in memory and in its files on disk.
 *
 * To be called under the lease of the catalog, when nothing is pending.
 *
 * @returns false when it can't be done now: it holds too much, or something is pending.
 */
export async function rewriteOutbox(redis: RedisClient, keys: RedisKeys): Promise<boolean> {
  return (await redis.eval(REWRITE, 2, keys.outbox, `${keys.outbox}:rewritten`, MAX_REWRITTEN)) === 1;
}

const REWRITE = `
if redis.call('EXISTS', KEYS[1]) == 0 then return 1 end
if redis.call('XLEN', KEYS[1]) > tonumber(ARGV[1]) then return 0 end
local function named(flat)
  local fields = {}
  for at = 1, #flat, 2 do fields[flat[at]] = flat[at + 1] end
  return fields
end
local groups = redis.call('XINFO', 'GROUPS', KEYS[1])
for _, group in ipairs(groups) do
  if named(group)['pending'] > 0 then return 0 end
end
local last = named(redis.call('XINFO', 'STREAM', KEYS[1]))['last-generated-id']
redis.call('DEL', KEYS[2])
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+')) do
  redis.call('XADD', KEYS[2], entry[1], unpack(entry[2]))
end
for _, group in ipairs(groups) do
  redis.call('XGROUP', 'CREATE', KEYS[2], named(group)['name'], named(group)['last-delivered-id'], 'MKSTREAM')
end
if redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('XSETID', KEYS[2], last)
  redis.call('RENAME', KEYS[2], KEYS[1])
else
  redis.call('DEL', KEYS[1])
end
return 1`;
