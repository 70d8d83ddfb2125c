import { once } from 'node:events';
import { createReadStream, createWriteStream } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { finished } from 'node:stream/promises';
import type { ArchiveStore } from '../store/archive-store.ts';
import type { BucketObject } from '../store/bucket-files.ts';
import { type Partition, partitionOfKey, partitionPrefix } from './catalog-keys.ts';
import { appsOf, kindFoldersOf } from './days.ts';
import { type Duck, fromNdjson, fromParquet, sqlText } from './duck.ts';
import { type FlushParts, PARQUET_TYPE, unwrap } from './flush.ts';
import { inParallel } from './in-parallel.ts';
import { localPath, type NewRow, writeParquet } from './parquet.ts';
import { rowFromObject } from './row-from-object.ts';
import { TABLES } from './tables.ts';

/** Objects looked at at once. */
const HEADS_AT_ONCE = 16;
/** Rows made and written at once. */
const ROWS_AT_ONCE = 20_000;

export interface ReconcileParts extends FlushParts {
  readonly store: Pick<ArchiveStore, 'head' | 'digest' | 'readJson'>;
  readonly now: () => number;
}

/** How the rows of a day and app compare with its objects. */
export interface Reconciled {
  readonly objects: number;
  /** Rows that were missing, made from their objects. */
  readonly added: number;
  /** Objects that say nothing of themselves: not ours. */
  readonly foreign: number;
}

/**
 * Compares the objects of a day with its rows, app by app, and makes the rows that are missing from the objects. Harmless
 * to repeat. Memory does not grow with the number of objects.
 *
 * @throws FailureError
 */
export async function reconcileDay(parts: ReconcileParts, dt: string, signal: AbortSignal): Promise<Reconciled> {
  const total = { objects: 0, added: 0, foreign: 0 };
  for await (const app of appsOf(parts.files, signal)) {
    const { objects, added, foreign } = await reconcile(parts, { table: 'media', dt, app }, signal);
    total.objects += objects;
    total.added += added;
    total.foreign += foreign;
  }
  return total;
}

async function reconcile(parts: ReconcileParts, partition: Partition, signal: AbortSignal): Promise<Reconciled> {
  const { files, duck, store, folder, now } = parts;
  const { dt, app = '' } = partition;
  const work = await mkdtemp(join(folder, 'reconcile-'));
  try {
    const listing = join(work, 'objects.ndjson');
    const objects = await writeListing(objectsOf(parts, dt, app, signal), listing);
    if (objects === 0) return { objects, added: 0, foreign: 0 };
    const paths: string[] = [];
    for await (const { key } of files.list(partitionPrefix(partition), signal)) {
      if (partitionOfKey(key) === undefined) continue;
      const path = localPath(work, key);
      if (unwrap(await files.getFile(key, path, signal))) paths.push(path);
    }
    const missing = join(work, 'missing.ndjson');
    await findMissing(duck, listing, paths, missing, signal);
    let [added, foreign, pages] = [0, 0, 0];
    for await (const page of pagesOf(missing)) {
      const rows: NewRow[] = [];
      await inParallel(HEADS_AT_ONCE, page, async (key) => {
        const row = await rowFromObject(store, key, signal);
        if (row === undefined) foreign += 1;
        else rows.push({ row, mayBeThere: false });
      });
      if (rows.length === 0) continue;
      const name = `${partitionPrefix(partition)}made-${String(now()).padStart(15, '0')}-${pages}.parquet`;
      const path = join(work, 'made.parquet');
      await writeParquet(duck, TABLES.media, rows, [], path, signal);
      unwrap(await files.putFile(name, path, PARQUET_TYPE, signal));
      added += rows.length;
      pages += 1;
    }
    return { objects, added, foreign };
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** The media objects of a day and app. @throws FailureError */
export async function* objectsOf(
  { files }: Pick<FlushParts, 'files'>,
  dt: string,
  app: string,
  signal: AbortSignal,
): AsyncIterable<BucketObject> {
  for await (const kind of kindFoldersOf(files, app, signal)) yield* files.list(`${kind}dt=${dt}/`, signal);
}

/** Writes a listing to disk, a line an object, and returns how many there were. */
export async function writeListing(objects: AsyncIterable<BucketObject>, path: string): Promise<number> {
  const stream = createWriteStream(path);
  let count = 0;
  for await (const { key, sizeBytes, etag } of objects) {
    count += 1;
    const line = `${JSON.stringify({ key, size_bytes: sizeBytes, etag: etag ?? null })}\n`;
    if (!stream.write(line)) await once(stream, 'drain');
  }
  stream.end();
  await finished(stream);
  return count;
}

export const LISTING_COLUMNS = [
  { name: 'key', type: 'VARCHAR' },
  { name: 'size_bytes', type: 'BIGINT' },
  { name: 'etag', type: 'VARCHAR' },
] as const;

/** Writes the keys that have no row to a file, a line each. */
async function findMissing(
  duck: Duck,
  listing: string,
  paths: readonly string[],
  path: string,
  signal: AbortSignal,
): Promise<void> {
  const known = paths.length === 0 ? '' : `WHERE key NOT IN (SELECT key FROM ${fromParquet(paths)})`;
  const query = `SELECT key FROM ${fromNdjson(listing, LISTING_COLUMNS)} ${known} ORDER BY key`;
  await duck.run(`COPY (${query}) TO ${sqlText(path)} (FORMAT json)`, signal);
}

async function* pagesOf(path: string): AsyncIterable<readonly string[]> {
  let page: string[] = [];
  for await (const line of createInterface({ input: createReadStream(path) })) {
    page.push((JSON.parse(line) as { key: string }).key);
    if (page.length < ROWS_AT_ONCE) continue;
    yield page;
    page = [];
  }
  if (page.length > 0) yield page;
}
