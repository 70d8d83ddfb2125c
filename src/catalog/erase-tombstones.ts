import { invalidJobId } from '../dead-letter/dead-letter.ts';
import { mediaJobId } from '../media/media-job.ts';
import type { RedisClient } from '../redis/connect.ts';
import type { RedisKeys } from '../redis/keys.ts';
import type { OutboxEntry, OutboxReader } from './outbox-reader.ts';
import type { AnyRow, Table } from './table.ts';

/** Keys in one command to Redis. */
const PAGE = 1_000;

/**
 * What was erased and must not come back: not by WeChat's repeated push, nor by an attempt that was under way.
 *
 * A tombstone is a key named by the SHA-256 of the job id, and holds nothing. It lasts as long as anybody may hand the
 * media in again.
 */
export interface Tombstones {
  set(jobIds: Iterable<string>, keepMs: number): Promise<void>;
  /** Tells, for each id, whether it was erased. */
  has(jobIds: readonly string[]): Promise<boolean[]>;
}

export function createTombstones(redis: RedisClient, keys: RedisKeys): Tombstones {
  return {
    set: async (jobIds, keepMs) => {
      for (const page of pagesOf(jobIds)) {
        const steps = redis.pipeline();
        for (const jobId of page) steps.set(keys.erased(jobId), '', 'PX', Math.ceil(keepMs));
        for (const [error] of (await steps.exec()) ?? []) if (error !== null) throw error;
      }
    },
    has: async (jobIds) => {
      const found: boolean[] = [];
      for (const page of pagesOf(jobIds)) {
        const values = await redis.mget(page.map((jobId) => keys.erased(jobId)));
        found.push(...values.map((value) => value !== null));
      }
      return found;
    },
  };
}

function* pagesOf(jobIds: Iterable<string>): Iterable<string[]> {
  let page: string[] = [];
  for (const jobId of jobIds) {
    page.push(jobId);
    if (page.length < PAGE) continue;
    yield page;
    page = [];
  }
  if (page.length > 0) yield page;
}

/** A reader of the outbox that leaves out the rows of erased media: what was noted just before they were erased. */
export function withoutErased(reader: OutboxReader, tombstones: Pick<Tombstones, 'has'>): OutboxReader {
  return {
    ...reader,
    take: async (maxRows) => {
      const batch = await reader.take(maxRows);
      return { ...batch, entries: keptOf(batch.entries, tombstones) };
    },
  };
}

/** Asked page by page, as the entries are read. */
async function* keptOf(
  all: AsyncIterable<OutboxEntry>,
  tombstones: Pick<Tombstones, 'has'>,
): AsyncIterable<OutboxEntry> {
  for await (const entries of entryPagesOf(all)) {
    const erased = await tombstones.has(entries.flatMap(({ table, rows }) => rows.map((row) => idOf(table, row))));
    let at = 0;
    for (const entry of entries) yield { ...entry, rows: entry.rows.filter(() => erased[at++] !== true) };
  }
}

/** As many as are asked for at once. */
const ENTRIES_AT_ONCE = 100;

async function* entryPagesOf(all: AsyncIterable<OutboxEntry>): AsyncIterable<OutboxEntry[]> {
  let page: OutboxEntry[] = [];
  for await (const entry of all) {
    page.push(entry);
    if (page.length < ENTRIES_AT_ONCE) continue;
    yield page;
    page = [];
  }
  if (page.length > 0) yield page;
}

/** The job that a row tells of. */
function idOf(table: Table, row: AnyRow): string {
  const [appId, mediaId, variant] = [String(row['app_id']), String(row['media_id']), row['variant']];
  if (table.name === 'dead-letters' && row['deadline'] === null) return invalidJobId(mediaId);
  // As `mediaJobId` has it, whatever the variant is called.
  return typeof variant === 'string' ? `${mediaJobId({ appId, mediaId })}.${variant}` : mediaJobId({ appId, mediaId });
}
