import type { ArchivedObject } from '../archive/archive-media.ts';
import { MAX_OUTBOX_ENTRIES, type OutboxFields } from '../catalog/outbox.ts';
import type { RedisClient } from '../redis/connect.ts';
import type { RedisKeys } from '../redis/keys.ts';
import { keyOfPlace, placeOfKey } from '../store/object-keys.ts';
import { type Clock, DAY } from '../time.ts';

/**
 * Remembers that a media is archived, for as long as somebody may enqueue it again.
 *
 * One short string with an expiry in place of the whole job: it is what WeChat's repeated pushes meet at the door, and
 * what tells an operator where the media lies. Losing it costs a second download, which finds the object at its key.
 */
export interface ArchivedMarkers {
  /**
   * Written before the job is removed, so that a media is never in neither place. Harmless to repeat.
   *
   * In the same step the catalog is told, and only by the first marker: so a media has one row, whoever dies when.
   *
   * @param entry what the catalog is told; `undefined` for an object that says nothing of itself.
   * @returns false, and nothing is done, for a media that was erased meanwhile.
   */
  mark(jobId: string, object: Pick<ArchivedObject, 'key'>, deadline: number, entry?: OutboxFields): Promise<boolean>;
  /** Returns the key of each archived media; `undefined` for the others. */
  find(jobIds: readonly string[]): Promise<(string | undefined)[]>;
  /** Tells, in one round trip, where a media lies, or that it was erased and must not come back. */
  look(jobId: string): Promise<{ readonly key: string | undefined; readonly isErased: boolean }>;
}

/** Pushes come at once and customers' own retries soon after; a day past the deadline nobody asks any more. */
const KEEP_PAST_DEADLINE_MS = DAY;

export function createArchivedMarkers(redis: RedisClient, keys: RedisKeys, now: Clock): ArchivedMarkers {
  return {
    mark: async (jobId, { key }, deadline, entry) => {
      const keepMs = Math.ceil(Math.max(DAY, deadline + KEEP_PAST_DEADLINE_MS - now()));
      const marker = keys.archived(jobId);
      const touched = [marker, keys.outbox, keys.erased(jobId)];
      const arguments_ = [packed(key), keepMs, MAX_OUTBOX_ENTRIES, ...(entry ?? [])];
      return (await redis.eval(MARK, touched.length, ...touched, ...arguments_)) === 1;
    },
    look: async (jobId) => {
      const [text, erased] = await redis.mget(keys.archived(jobId), keys.erased(jobId));
      const key = text === null || text === undefined ? undefined : unpacked(text, jobId);
      return { key, isErased: erased !== null && erased !== undefined };
    },
    find: async (jobIds) => {
      if (jobIds.length === 0) return [];
      const found = await redis.mget(jobIds.map((jobId) => keys.archived(jobId)));
      return found.map((text, index) => (text === null ? undefined : unpacked(text, jobIds[index] ?? '')));
    },
  };
}

/**
 * The entry first: a script that breaks is not taken back. If somebody has put something else at the key of the outbox,
 * the media counts as archived all the same, and its row is made up for when its day is closed.
 */
const MARK = `
if redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
if redis.call('EXISTS', KEYS[1]) == 0 and #ARGV > 3 then
  local fields = {}
  for index = 4, #ARGV do fields[#fields + 1] = ARGV[index] end
  local added = redis.pcall('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', unpack(fields))
  if type(added) == 'table' and added.err and not string.find(added.err, 'WRONGTYPE') then return added end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1`;

/** The key without what the job id says already: with millions of them it counts. */
function packed(key: string): string {
  const place = placeOfKey(key);
  return place === undefined ? key : `${place.kind} ${place.day} ${place.extension}`;
}

function unpacked(text: string, jobId: string): string {
  const [kind, day, extension] = text.split(' ');
  if (kind === undefined || day === undefined || extension === undefined) return text;
  const dash = jobId.indexOf('-');
  return keyOfPlace(jobId.slice(0, dash), jobId.slice(dash + 1), { kind, day, extension });
}
