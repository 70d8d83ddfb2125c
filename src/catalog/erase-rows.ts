import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { BucketFiles } from '../store/bucket-files.ts';
import { dayPrefix, lettersKey, type Partition, partitionOfKey } from './catalog-keys.ts';
import { daysOf } from './days.ts';
import { type Duck, fromNdjson, fromParquet, sqlText } from './duck.ts';
import { NO_APP } from './erase-search.ts';
import type { Wanted } from './erase-wanted.ts';
import { PARQUET_TYPE, unwrap } from './flush.ts';
import { columnsOf, copy, localPath, withAllColumns, writeNdjson } from './parquet.ts';
import { replaceFiles } from './replace-files.ts';
import type { Table, TableName } from './table.ts';
import { TABLES } from './tables.ts';

export interface EraseRowsParts {
  readonly files: BucketFiles;
  readonly duck: Duck;
  /** On this machine's disk. */
  readonly folder: string;
}

export interface ErasedRows {
  rows: number;
  files: number;
}

/**
 * The order in which rows go: those by which a person is found last, so that a run that was broken off finds everybody
 * again.
 */
export const ROWS_IN_ORDER: readonly TableName[] = ['accepted', 'derived', 'dead-letters', 'media'];

/**
 * Writes the catalog files that hold rows of media anew without them. The caller holds the lease of the catalog. In a
 * bucket with versions the old files stay, hidden: see `removeHidden`. Harmless to repeat.
 *
 * @param dryRun counts only. @throws FailureError
 */
export async function eraseRows(
  { files, duck, folder }: EraseRowsParts,
  wanted: Wanted,
  tables: readonly TableName[],
  dryRun: boolean,
  signal: AbortSignal,
): Promise<ErasedRows> {
  const counts: ErasedRows = { rows: 0, files: 0 };
  if (wanted.mediaIds.size === 0 && wanted.letterKeys.size === 0) return counts;
  const work = await mkdtemp(join(folder, 'erase-rows-'));
  try {
    await nameThem(duck, work, wanted, signal);
    for (const name of tables) {
      const table: Table = TABLES[name];
      for await (const dt of daysOf(files, name, signal)) {
        for await (const { key } of files.list(dayPrefix(name, dt), signal)) {
          const partition = partitionOfKey(key);
          if (partition === undefined || !mayHold(partition, wanted)) continue;
          const rows = await eraseFrom(work, key, partition, table);
          counts.rows += rows;
          counts.files += rows === 0 ? 0 : 1;
        }
      }
    }
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return counts;

  async function eraseFrom(work: string, key: string, partition: Partition, table: Table): Promise<number> {
    const path = localPath(work, key);
    // Gone since it was listed: only in a dry run, which holds no lease.
    if (!unwrap(await files.getFile(key, path, signal))) return 0;
    const without = `${path}.without`;
    try {
      const source = await withAllColumns(duck, table, fromParquet([path]), signal);
      const where = whereOf(table, wanted.appId);
      const [answer] = await duck.rows(
        `SELECT count(*) AS n, count(*) FILTER (WHERE ${where}) AS hits FROM ${source}`,
        signal,
      );
      const [all, hits] = [Number(answer?.['n'] ?? 0), Number(answer?.['hits'] ?? 0)];
      if (hits === 0 || dryRun) return hits;
      const isEmpty = hits === all;
      const kept = `SELECT ${columnsOf(table)} FROM ${source} WHERE NOT (${where})`;
      if (!isEmpty) await copy(duck, table, kept, without, signal);
      await replace(key, partition, isEmpty ? undefined : without);
      return hits;
    } finally {
      await Promise.all([path, without].map((done) => rm(done, { force: true })));
    }
  }

  async function replace(key: string, partition: Partition, path: string | undefined): Promise<void> {
    if (path === undefined) unwrap(await files.removeVersions(key, signal));
    // The one file of a partition, always under its name.
    else if (key === lettersKey(partition.dt, partition.app ?? NO_APP))
      unwrap(await files.putFile(key, path, PARQUET_TYPE, signal));
    else await replaceFiles(files, partition, [key], [path], signal);
  }
}

/** Their rows have no openId: nobody is found by them, so they go before whatever else tells whose a media is. */
export const NAMELESS: readonly TableName[] = ['accepted', 'derived'];

/** True for a partition in which a row of the app may lie. */
export function mayHold({ table, app }: Partition, { appId }: Pick<Wanted, 'appId'>): boolean {
  return app === undefined || app === appId || (table === 'dead-letters' && app === NO_APP);
}

/** What is looked for, as tables of this connection: a person may have 100,000 media. */
async function nameThem(duck: Duck, work: string, wanted: Wanted, signal: AbortSignal): Promise<void> {
  for (const [name, ids] of [
    ['erase_media', wanted.mediaIds],
    ['erase_letters', wanted.letterKeys],
  ] as const) {
    const path = join(work, `${name}.ndjson`);
    await writeNdjson(
      path,
      [...ids].map((id) => ({ id })),
    );
    const source = fromNdjson(path, [{ name: 'id', type: 'VARCHAR' }]);
    await duck.run(
      ids.size === 0
        ? `CREATE OR REPLACE TEMP TABLE ${name} (id VARCHAR)`
        : `CREATE OR REPLACE TEMP TABLE ${name} AS SELECT id FROM ${source}`,
      signal,
    );
  }
}

/** Never null: a row is either meant or not. */
function whereOf(table: Table, appId: string): string {
  const theirs = `(app_id = ${sqlText(appId)} AND media_id IN (SELECT id FROM erase_media))`;
  return table.name === 'dead-letters' ? `(${theirs} OR key IN (SELECT id FROM erase_letters))` : theirs;
}
