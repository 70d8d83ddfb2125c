import { createWriteStream } from 'node:fs';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { finished } from 'node:stream/promises';
import { FailureError } from '../failure.ts';
import type { BucketFiles, BucketObject } from '../store/bucket-files.ts';
import { iso, MINUTE } from '../time.ts';
import { type Partition, partitionOfKey, partitionPrefix, sortable } from './catalog-keys.ts';
import { readState, writeState } from './catalog-state.ts';
import { derivedRowOf } from './derived-files.ts';
import { fromNdjson, fromParquet } from './duck.ts';
import { inParallel } from './in-parallel.ts';
import { mergeSorted } from './merge-sorted.ts';
import { columnsOf, copyAsIs, localPath } from './parquet.ts';
import { objectsOf, type ReconcileParts } from './reconcile.ts';
import { finishReplacements, replaceFiles } from './replace-files.ts';
import { rowFromObject } from './row-from-object.ts';
import type { AnyRow, Table } from './table.ts';
import { TABLES } from './tables.ts';
import { unwrap } from './unwrap.ts';

/** Objects looked at at once. */
const HEADS_AT_ONCE = 16;
/**
 * A worker may have stored a media that is found here, and tell the outbox of it only after. What the outbox brings so
 * much later is looked for among the rows all the same.
 */
const LATE_ENTRIES_MS = 10 * MINUTE;

export interface RebuildParts extends ReconcileParts {
  /** Told each object that could not be looked at. */
  readonly onUnread: (key: string, error: FailureError) => void;
  readonly onObject: () => void;
}

/** How the rows of a day and app compare with what its objects make. */
export interface Rebuilt {
  readonly objects: number;
  /** Rows that only the objects make, or make otherwise. */
  readonly added: number;
  /** Rows that no object makes, or not so, or that were there twice. */
  readonly removed: number;
  /** Objects that say nothing of themselves: not ours. */
  readonly foreign: number;
  readonly unread: number;
}

/** The tables that the bucket alone is enough for, beside dead letters. */
export type RebuiltTable = 'media' | 'derived';

/**
 * Makes the rows of a day and app anew from its objects alone, and replaces its files where they differ. Where an
 * object could not be looked at nothing is replaced. Harmless to repeat, and harmless when it is broken off. Memory does
 * not grow with the number of objects.
 *
 * The caller holds the lease of the catalog, and has called `expectLateEntries`.
 *
 * @throws FailureError
 */
export async function rebuildRows(
  parts: RebuildParts,
  name: RebuiltTable,
  dt: string,
  app: string,
  dryRun: boolean,
  signal: AbortSignal,
): Promise<Rebuilt> {
  const { files, duck, store, folder, onUnread, onObject } = parts;
  const partition: Partition = { table: name, dt, app };
  const all = name === 'media' ? objectsOf(parts, dt, app, signal) : derivedObjectsOf(files, dt, app, signal);
  const rowOf = (key: string): Promise<AnyRow | undefined> =>
    name === 'media' ? rowFromObject(store, key, signal) : derivedRow(files, key, signal);
  const work = await mkdtemp(join(folder, 'rebuild-'));
  try {
    const lines = join(work, 'rows.ndjson');
    const stream = createWriteStream(lines);
    let [objects, foreign, unread] = [0, 0, 0];
    await inParallel(HEADS_AT_ONCE, all, async ({ key }) => {
      objects += 1;
      try {
        const row = await rowOf(key);
        if (row === undefined) foreign += 1;
        else stream.write(`${JSON.stringify(row)}\n`);
      } catch (error) {
        if (!(error instanceof FailureError)) throw error;
        unread += 1;
        onUnread(key, error);
      }
      onObject();
    }).finally(() => stream.end());
    await finished(stream);

    const [sources, paths]: [string[], string[]] = [[], []];
    for await (const { key } of files.list(partitionPrefix(partition), signal)) {
      if (partitionOfKey(key) === undefined) continue;
      const path = localPath(work, key);
      if (!unwrap(await files.getFile(key, path, signal))) continue;
      sources.push(key);
      paths.push(path);
    }
    const table: Table = TABLES[name];
    const columns = columnsOf(table);
    const made = `SELECT ${columns} FROM ${fromNdjson(lines, table.columns)}`;
    const there = paths.length === 0 ? `${made} LIMIT 0` : `SELECT ${columns} FROM ${fromParquet(paths)}`;
    const onlyIn = async (one: string, other: string): Promise<number> => {
      const [answer] = await duck.rows(
        `SELECT count(*) AS n FROM ((SELECT * FROM (${one})) EXCEPT ALL (SELECT * FROM (${other})))`,
        signal,
      );
      return Number(answer?.['n']);
    };
    const [added, removed] = [await onlyIn(made, there), await onlyIn(there, made)];
    const report = { objects, added, removed, foreign, unread };
    if (dryRun || unread > 0 || added + removed === 0) return report;
    const merged = join(work, 'merged');
    await mkdir(merged);
    const unsorted = join(work, 'unsorted.parquet');
    let targets: readonly string[] = [];
    if (objects > foreign) {
      await copyAsIs(duck, table, made, unsorted, signal);
      targets = (await mergeSorted(duck, table, [unsorted], merged, signal)).paths;
    }
    await replaceFiles(files, partition, sources, targets, signal);
    return report;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/**
 * Has the catalog process look up what the outbox holds now, and brings soon, among the rows that are there: an object
 * that a rebuild has found may have its entry still to come. Ends what a process that died has left half done.
 *
 * @throws FailureError
 */
export async function expectLateEntries({ files, now }: RebuildParts, signal: AbortSignal): Promise<void> {
  await finishReplacements(files, signal);
  const state = await readState(files, signal);
  const flushedId = sortable(`${now() + LATE_ENTRIES_MS}-0`);
  if (flushedId > state.flushedId) await writeState(files, { ...state, flushedId }, signal);
}

async function* derivedObjectsOf(
  files: BucketFiles,
  dt: string,
  app: string,
  signal: AbortSignal,
): AsyncIterable<BucketObject> {
  for await (const kind of files.folders(`derived/app=${app}/`, signal)) yield* files.list(`${kind}dt=${dt}/`, signal);
}

async function derivedRow(files: BucketFiles, key: string, signal: AbortSignal): Promise<AnyRow | undefined> {
  const head = unwrap(await files.head(key, signal));
  return head === undefined ? undefined : derivedRowOf(head);
}

/** @throws FailureError */
export async function noteChangedDay(
  { files }: Pick<RebuildParts, 'files'>,
  dt: string,
  signal: AbortSignal,
): Promise<void> {
  const state = await readState(files, signal);
  if (dt >= (state.closeNext ?? '') || state.changedDays.includes(dt)) return;
  await writeState(files, { ...state, changedDays: [...state.changedDays, dt].toSorted() }, signal);
}

/** The day of an instant, as partitions have it. */
export function dayOfInstant(timeMs: number): string {
  return iso(timeMs).slice(0, 10);
}
