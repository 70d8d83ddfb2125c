import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { partitionOfKey, partitionPrefix } from './catalog-keys.ts';
import { readState, writeState } from './catalog-state.ts';
import { compareRows, readableFiles } from './compare-rows.ts';
import { type Duck, fromParquet, sqlName } from './duck.ts';
import { type FlushParts, PARQUET_TYPE } from './flush.ts';
import { downloadRows } from './manifest-rows.ts';
import { mergeSorted } from './merge-sorted.ts';
import { columnsOf, copy, copyAsIs, localPath, withAllColumns } from './parquet.ts';
import { createLook, type LookParts } from './rebuild-look.ts';
import type { RebuiltPartition } from './rebuild-partitions.ts';
import { finishReplacements, replaceFiles } from './replace-files.ts';
import type { Table } from './table.ts';
import { TABLES } from './tables.ts';
import { unwrap } from './unwrap.ts';

export type { RebuiltPartition } from './rebuild-partitions.ts';

/** How the rows of a partition compare with what its objects make. */
export interface Rebuilt {
  readonly objects: number;
  /** Rows that only the objects make, or make otherwise. */
  readonly added: number;
  /** Rows that no object makes, or not so, or that were there twice. */
  readonly removed: number;
  /** Objects that say nothing of themselves, or lie where none of ours does. */
  readonly foreign: number;
  /** Objects that could not be looked at: their rows are kept as they are. */
  readonly unread: number;
  /** Files of the catalog that nobody can read. */
  readonly spoilt: number;
}

export interface RebuildParts extends LookParts {
  /** Does work that one process at a time may do: what changes files of the catalog. */
  readonly held: <T>(work: (signal: AbortSignal) => Promise<T>) => Promise<T>;
  /** Called with the lease held, before files are replaced. */
  readonly beforeReplacing?: (dt: string, signal: AbortSignal) => Promise<void>;
}

/**
 * Makes the rows of a partition anew from its objects alone, and replaces its files where they differ. Harmless to repeat,
 * and harmless when it is broken off. Memory does not grow with the number of objects.
 *
 * Objects are looked at before the lease is taken, which may take an hour. With it they are listed once more, after the
 * files of the catalog: what has come, gone or changed meanwhile is looked at again, and so nothing that was erased comes
 * back. Where nothing differs the lease is not taken at all.
 *
 * @throws FailureError
 */
export async function rebuildPartition(
  parts: RebuildParts,
  partition: RebuiltPartition,
  isDryRun: boolean,
  signal: AbortSignal,
): Promise<Rebuilt> {
  const { files, duck, folder, held, beforeReplacing } = parts;
  const table = TABLES[partition.table];
  const columns = columnsOf(table);
  const work = await mkdtemp(join(folder, 'rebuild-'));
  const look = createLook(parts, partition, work);
  try {
    const before = await mkdtemp(join(work, 'there-'));
    const paths = await downloadRows(files, partitionPrefix(partition), before, () => true, signal);
    const { rebuilt } = await compare(paths, signal);
    if (isDryRun || !isDifferent(rebuilt)) {
      await look.tell();
      return rebuilt;
    }
    return await held(async (leased) => {
      await finishReplacements(files, leased);
      const there = await download(leased);
      const { rebuilt: now, query } = await compare([...there.values()], leased);
      if (isDifferent(now)) {
        await beforeReplacing?.(partition.dt, leased);
        await replace([...there.keys()], query, leased);
      }
      await look.tell();
      return now;
    });
  } finally {
    await rm(work, { recursive: true, force: true });
  }

  async function compare(
    paths: readonly string[],
    within: AbortSignal,
  ): Promise<{ readonly rebuilt: Rebuilt; readonly query: string }> {
    const { made: all, unreadPath, ...counts } = await look.again(within);
    const made = await onceEach(duck, table, all, within);
    const readable = await readableFiles(duck, table, paths, within);
    const there =
      readable.length === 0
        ? `SELECT * FROM (${made}) LIMIT 0`
        : `SELECT ${columns} FROM ${await withAllColumns(duck, table, fromParquet(readable), within)}`;
    const kept = `SELECT ${columns} FROM (${there}) WHERE key IN (SELECT key FROM ${unreadPath})
      QUALIFY row_number() OVER (PARTITION BY key) = 1`;
    const query = counts.unread === 0 ? made : `${made} UNION ALL (${kept})`;
    const compared = await compareRows(duck, table, query, there, within);
    return { query, rebuilt: { ...counts, ...compared, spoilt: paths.length - readable.length } };
  }

  /** The files of the partition, by their keys. */
  async function download(within: AbortSignal): Promise<ReadonlyMap<string, string>> {
    const target = await mkdtemp(join(work, 'there-'));
    const found = new Map<string, string>();
    for await (const { key } of files.list(partitionPrefix(partition), within)) {
      if (partitionOfKey(key) === undefined) continue;
      const path = localPath(target, key);
      if (unwrap(await files.getFile(key, path, within))) found.set(key, path);
    }
    return found;
  }

  async function replace(sources: readonly string[], query: string, within: AbortSignal): Promise<void> {
    if (partition.table === 'dead-letters') return replaceLetters(sources, query, within);
    const [unsorted, merged] = [join(work, 'unsorted.parquet'), join(work, 'merged')];
    await mkdir(merged);
    const rows = await copyAsIs(duck, table, query, unsorted, within);
    const targets = rows === 0 ? [] : (await mergeSorted(duck, table, [unsorted], merged, within)).paths;
    await replaceFiles(files, partition, sources, targets, within);
  }

  /** One file, rewritten in one step. */
  async function replaceLetters(sources: readonly string[], query: string, within: AbortSignal): Promise<void> {
    const key = `${partitionPrefix(partition)}letters.parquet`;
    const path = join(work, 'letters.parquet');
    const rows = await copy(duck, table, query, path, within);
    if (rows > 0) unwrap(await files.putFile(key, path, PARQUET_TYPE, within));
    for (const source of sources) if (rows === 0 || source !== key) unwrap(await files.remove(source, within));
  }
}

/** Of two objects of one media, which were archived under different kinds, the later one has the row, as when files are merged. */
async function onceEach(duck: Duck, table: Table, made: string, signal: AbortSignal): Promise<string> {
  const identity = table.identity.map(sqlName).join(', ');
  if (identity === sqlName('key')) return made;
  const [answer] = await duck.rows(
    `SELECT count(*) AS n, count(DISTINCT hash(${identity})) AS different FROM (${made})`,
    signal,
  );
  if (answer?.['n'] === answer?.['different']) return made;
  const twice = `SELECT hash(${identity}) FROM (${made}) GROUP BY ALL HAVING count(*) > 1`;
  await duck.run(
    `CREATE OR REPLACE TEMP TABLE "not the latest" AS SELECT key FROM (${made}) WHERE hash(${identity}) IN (${twice})
      QUALIFY row_number() OVER (PARTITION BY ${identity} ORDER BY archived_at DESC, key) > 1`,
    signal,
  );
  return `SELECT * FROM (${made}) WHERE key NOT IN (SELECT key FROM "not the latest")`;
}

function isDifferent({ added, removed, spoilt }: Rebuilt): boolean {
  return added + removed + spoilt > 0;
}

/**
 * Notes, before files are replaced, that rows were made of objects that lay there until now: what the outbox brings of
 * them, however late, is there already. And a day that is closed must be sealed again.
 *
 * @throws FailureError
 */
export async function noteRebuilt(
  { files }: Pick<FlushParts, 'files'>,
  dt: string,
  rebuiltAt: number,
  signal: AbortSignal,
): Promise<void> {
  const state = await readState(files, signal);
  const isClosed = dt < (state.closeNext ?? '');
  const changedDays = isClosed ? [...new Set([...state.changedDays, dt])].toSorted() : state.changedDays;
  await writeState(files, { ...state, changedDays, rebuiltAt: Math.max(rebuiltAt, state.rebuiltAt) }, signal);
}
