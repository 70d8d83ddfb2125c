import { createReadStream } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type Failure, FailureError } from '../failure.ts';
import type { ArchiveStore } from '../store/archive-store.ts';
import type { BucketObject } from '../store/bucket-files.ts';
import { DEAD_LETTER_PREFIX } from '../store/object-keys.ts';
import { derivedRowOf } from './derived-files.ts';
import { fromNdjson, fromParquet, sqlName, sqlText } from './duck.ts';
import { type FlushParts, partitionOf } from './flush.ts';
import { inParallel } from './in-parallel.ts';
import { letterRow } from './letter-row.ts';
import { openLineFile } from './line-file.ts';
import { columnsOf, copyLines } from './parquet.ts';
import type { RebuiltPartition } from './rebuild-partitions.ts';
import { LISTING_COLUMNS, objectsOf, writeListing } from './reconcile.ts';
import { rowFromObject } from './row-from-object.ts';
import type { AnyRow, Column } from './table.ts';
import { TABLES } from './tables.ts';
import { unwrap } from './unwrap.ts';

/** Objects looked at at once. */
const LOOKS_AT_ONCE = 16;
/** Of which none could be looked at: then it is the store, and not they. */
const FAILURES_IN_A_ROW = 100;

export interface LookParts extends FlushParts {
  readonly store: Pick<ArchiveStore, 'head' | 'digest' | 'readJson'>;
  /** Told each object that could not be looked at. Absent: the first ends it all. */
  readonly onUnread?: (key: string, failure: Pick<Failure, 'code' | 'detail'>) => void;
  readonly onForeign?: (key: string) => void;
  readonly onObject?: () => void;
}

/** What the objects of a partition make. */
export interface Looked {
  readonly objects: number;
  readonly foreign: number;
  readonly unread: number;
  /** A query that gives the rows, each key once. */
  readonly made: string;
  /** What to read the keys of the unread from, in SQL. */
  readonly unreadPath: string;
}

/** A look at all objects of a partition, which may be had again. */
export interface Look {
  /** Lists them, and looks at those that have come or changed since the last time. @throws FailureError */
  again(signal: AbortSignal): Promise<Looked>;
  /** Names what the last time was unread or foreign. */
  tell(): Promise<void>;
}

const KEY = [{ name: 'key', type: 'VARCHAR' }] as const;
/** As the listing told it when the object was looked at. */
const LISTED: readonly Pick<Column, 'name' | 'type'>[] = [{ name: '_etag', type: 'VARCHAR' }];

/** @param work a folder of this look's own. */
export function createLook(parts: LookParts, { table: name, dt, app }: RebuiltPartition, work: string): Look {
  const { files, duck, store, onUnread, onForeign, onObject } = parts;
  const table = TABLES[name];
  let turn = 0;
  /** A file with the rows that the last look has made. */
  let rows: string | undefined;
  let [unreadPath, foreignPath] = ['', ''];

  function objects(signal: AbortSignal): AsyncIterable<BucketObject> {
    if (name === 'media') return objectsOf(parts, dt, app, signal);
    if (name === 'derived') return derivedObjects(signal);
    return files.list(`${DEAD_LETTER_PREFIX}app=${app}/dt=${dt}/`, signal);
  }

  async function* derivedObjects(signal: AbortSignal): AsyncIterable<BucketObject> {
    for await (const kind of files.folders(`derived/app=${app}/`, signal))
      yield* files.list(`${kind}dt=${dt}/`, signal);
  }

  async function rowOf(key: string, signal: AbortSignal): Promise<AnyRow | undefined> {
    if (name === 'media') return rowFromObject(store, key, signal);
    const row = name === 'derived' ? await derivedRow(key, signal) : await letterRow(files, key, signal);
    if (row === undefined) return undefined;
    const place = partitionOf(table, row);
    return place.dt === dt && place.app === app ? row : undefined;
  }

  async function derivedRow(key: string, signal: AbortSignal): Promise<AnyRow | undefined> {
    const head = unwrap(await files.head(key, signal));
    return head === undefined ? undefined : derivedRowOf(head);
  }

  async function lookAt(
    path: string,
    signal: AbortSignal,
  ): Promise<{ readonly lines: string; readonly foreign: number; readonly unread: number }> {
    const lines = join(work, `rows-${turn}.ndjson`);
    [unreadPath, foreignPath] = [join(work, `unread-${turn}.ndjson`), join(work, `foreign-${turn}.ndjson`)];
    await using made = await openLineFile(lines);
    await using unread = await openLineFile(unreadPath);
    await using foreign = await openLineFile(foreignPath);
    const counts = { foreign: 0, unread: 0 };
    let inARow = 0;
    await inParallel(LOOKS_AT_ONCE, linesOf(path), async ({ key, etag }) => {
      try {
        const row = await rowOf(key, signal);
        inARow = 0;
        if (row !== undefined) await made.write({ ...row, _etag: etag });
        else {
          counts.foreign += 1;
          await foreign.write({ key });
        }
      } catch (error) {
        if (!(error instanceof FailureError) || onUnread === undefined) throw error;
        inARow += 1;
        if (inARow >= FAILURES_IN_A_ROW) throw error;
        counts.unread += 1;
        const { code, detail } = error.failure;
        await unread.write({ key, code, ...(detail === undefined ? {} : { detail }) });
      }
      onObject?.();
    });
    await Promise.all([made.end(), unread.end(), foreign.end()]);
    return { lines, ...counts };
  }

  return {
    again: async (signal) => {
      turn += 1;
      const listing = join(work, `listing-${turn}.ndjson`);
      const count = await writeListing(objects(signal), listing);
      // Keys are long: joined by them, a million would take more memory than there is.
      const listed = `(SELECT key, etag, hash(key, etag) AS named FROM ${fromNdjson(listing, LISTING_COLUMNS)})`;
      const known =
        rows === undefined ? undefined : `(SELECT *, hash(key, _etag) AS named FROM ${fromParquet([rows])})`;
      let path = listing;
      if (known !== undefined) {
        path = join(work, `news-${turn}.ndjson`);
        await copyLines(
          duck,
          `SELECT key, etag FROM ${listed} ANTI JOIN ${known} AS known USING (named)`,
          path,
          signal,
        );
      }
      const { lines, ...counts } = await lookAt(path, signal);
      const all = [...table.columns, ...LISTED].map((column) => sqlName(column.name)).join(', ');
      const news = `SELECT ${all} FROM ${fromNdjson(lines, [...table.columns, ...LISTED])}`;
      const still =
        known === undefined ? '' : `UNION ALL SELECT ${all} FROM ${known} SEMI JOIN ${listed} AS listed USING (named)`;
      rows = join(work, `rows-${turn}.parquet`);
      await duck.run(`COPY (${news} ${still}) TO ${sqlText(rows)} (FORMAT parquet, COMPRESSION zstd)`, signal);
      await rm(lines);
      const made = `SELECT ${columnsOf(table)} FROM ${fromParquet([rows])}`;
      return { objects: count, ...counts, made, unreadPath: fromNdjson(unreadPath, KEY) };
    },

    tell: async () => {
      for await (const { key, ...failure } of linesOf<{ key: string } & Pick<Failure, 'code' | 'detail'>>(unreadPath))
        onUnread?.(key, failure);
      for await (const { key } of linesOf(foreignPath)) onForeign?.(key);
    },
  };
}

async function* linesOf<T = { readonly key: string; readonly etag?: string | null }>(path: string): AsyncIterable<T> {
  for await (const line of createInterface({ input: createReadStream(path) })) yield JSON.parse(line) as T;
}
