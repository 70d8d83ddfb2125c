import { mkdtemp, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { BucketFiles } from '../store/bucket-files.ts';
import { lettersKey, type Partition, partitionOfKey, partitionPrefix, partKey } from './catalog-keys.ts';
import { readableFiles } from './compare-rows.ts';
import { type Duck, DuckError, fromNdjson, fromParquet } from './duck.ts';
import { inParallel } from './in-parallel.ts';
import { latestLetters } from './letter-row.ts';
import type { OutboxBatch } from './outbox-reader.ts';
import { columnsOf, copy, linesToParquet, localPath, withAllColumns } from './parquet.ts';
import { partitionOf, type Spooled, spool } from './spool.ts';
import type { Table } from './table.ts';
import { TABLES } from './tables.ts';
import { unwrap } from './unwrap.ts';

export { partitionOf, unwrap };

export const PARQUET_TYPE = 'application/vnd.apache.parquet';

/** Files on their way at once. */
const PARTITIONS_AT_ONCE = 8;

export interface FlushParts {
  readonly files: BucketFiles;
  readonly duck: Duck;
  /** On this machine's disk, for files on their way. */
  readonly folder: string;
}

/** What a flush has written. */
export interface Flushed {
  readonly rows: number;
  readonly files: number;
  readonly partitions: readonly Partition[];
  /** Files that nobody can read, of those that had to be read. */
  readonly spoilt: readonly string[];
}

/**
 * Writes a batch of the outbox to the bucket. Harmless to repeat with the same batch.
 *
 * Rows of media, derived files and what was accepted go to a new file in each partition, named after the batch; the one
 * file of dead letters in a partition is replaced by one with their new states. What may be there already is looked for,
 * and letters that are told again are read as they are now.
 * A file of media that nobody can read is left as it is, and so is one of dead letters, without their new states: its rows
 * are made anew of the letters when the day is closed, or by a rebuild.
 *
 * @throws FailureError what the bucket answers; some files may be there by then.
 */
export async function flush(
  { files, duck, folder }: FlushParts,
  batch: Pick<OutboxBatch, 'entries' | 'ids' | 'isRepeated'>,
  signal: AbortSignal,
): Promise<Flushed> {
  const [firstId, lastId] = [batch.ids[0], batch.ids.at(-1)];
  if (firstId === undefined || lastId === undefined) return { rows: 0, files: 0, partitions: [], spoilt: [] };
  const work = await mkdtemp(join(folder, 'flush-'));
  let [rows, written] = [0, 0];
  const partitions: Partition[] = [];
  const spoilt: string[] = [];
  try {
    // DuckDB does one after the other, while others are on their way to the bucket.
    await inParallel(PARTITIONS_AT_ONCE, await spool(batch, work), async (spooled) => {
      signal.throwIfAborted();
      const count =
        spooled.table.name === 'dead-letters'
          ? await mergeLetters(spooled)
          : await addPart(spooled, partKey(spooled.partition, firstId, lastId));
      rows += count;
      written += count === 0 ? 0 : 1;
      partitions.push(spooled.partition);
    });
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return { rows, files: written, partitions, spoilt };

  async function addPart({ partition, table, path: lines, mayBeThere }: Spooled, key: string): Promise<number> {
    const path = localPath(work, key);
    const mustLook = table.name !== 'accepted' && mayBeThere;
    const there = mustLook ? await download(partition) : new Map<string, string>();
    const write = (): Promise<number> => linesToParquet(duck, table, lines, [...there.values()], path, signal);
    const count = await write().catch(async (error: unknown) => {
      await dropSpoilt(there, table, error);
      return write();
    });
    const before = there.get(key);
    if (count > 0 && before !== undefined) {
      // A Redis that was set back may give out the ids of a batch once more, for other rows.
      const both = `${path}.both`;
      await copy(duck, table, `SELECT ${columnsOf(table)} FROM ${fromParquet([before, path])}`, both, signal);
      await rename(both, path);
    }
    if (count > 0) unwrap(await files.putFile(key, path, PARQUET_TYPE, signal));
    await Promise.all([path, lines, ...there.values()].map((done) => rm(done, { force: true })));
    return count;
  }

  /** Drops the files that are to blame for an error of DuckDB's. @throws what went wrong, when none is. */
  async function dropSpoilt(there: Map<string, string>, table: Table, error: unknown): Promise<void> {
    if (!(error instanceof DuckError)) throw error;
    const readable = new Set(await readableFiles(duck, table, [...there.values()], signal));
    const others = [...there].filter(([, path]) => !readable.has(path));
    if (others.length === 0) throw error;
    for (const [key, path] of others) {
      spoilt.push(key);
      there.delete(key);
      await rm(path, { force: true });
    }
  }

  /** The files of a partition, by their keys. */
  async function download(partition: Partition): Promise<Map<string, string>> {
    const paths = new Map<string, string>();
    for await (const { key } of files.list(partitionPrefix(partition), signal)) {
      if (partitionOfKey(key) === undefined) continue;
      const path = `${localPath(work, key)}.there`;
      if (unwrap(await files.getFile(key, path, signal))) paths.set(key, path);
    }
    return paths;
  }

  async function mergeLetters({ partition: { dt, app = 'unknown' }, path: told }: Spooled): Promise<number> {
    const key = lettersKey(dt, app);
    const table = TABLES['dead-letters'];
    const [path, before, lines] = [
      localPath(work, key),
      `${localPath(work, key)}.before`,
      `${localPath(work, key)}.ndjson`,
    ];
    const isThere = unwrap(await files.getFile(key, before, signal));
    const count = await latestLetters(files, told, lines, signal);
    const columns = columnsOf(table);
    const news = `SELECT ${columns} FROM ${fromNdjson(lines, table.columns)}`;
    const kept = async (): Promise<string> =>
      `SELECT ${columns} FROM ${await withAllColumns(duck, table, fromParquet([before]), signal)}
        WHERE key NOT IN (SELECT key FROM ${fromNdjson(lines, table.columns)})`;
    try {
      await copy(duck, table, isThere ? `${news} UNION ALL ${await kept()}` : news, path, signal);
      unwrap(await files.putFile(key, path, PARQUET_TYPE, signal));
      return count;
    } catch (error) {
      await dropSpoilt(new Map(isThere ? [[key, before]] : []), table, error);
      return 0;
    } finally {
      await Promise.all([path, before, lines, told].map((done) => rm(done, { force: true })));
    }
  }
}
